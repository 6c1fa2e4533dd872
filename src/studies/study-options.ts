import type { GenerateOptions, SubjectOptions } from "../pipelines/index.js";

/** What a study takes of `generate`'s options and hands on to it. Where they name nothing to draw, it is the model's examples. */
export type StudyOptions = Pick<
  GenerateOptions,
  | "numInferenceSteps"
  | "guidanceScale"
  | "guidanceChannels"
  | "seed"
  | "sampler"
  | "timestepSpacing"
  | "batchSize"
  | "signal"
  | keyof SubjectOptions
>;
