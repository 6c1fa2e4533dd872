import type { GenerateOptions } from "../pipelines/index.js";

/** What a study takes of `generate`'s options and hands on to it. */
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
>;
