export { type MeasuredForecast, type ModelDtype, modelDtypes, type StepRecord } from "../denoising/index.js";
export {
  adaptedFemo,
  type CacheMethod,
  type CacheOptions,
  type CachePresets,
  type CacheQuality,
  type CacheSettings,
  cacheMethods,
  calibrated,
  chipmunk,
  dbCache,
  deepCache,
  deltaDit,
  duca,
  type FittedSolver,
  femo,
  firstBlock,
  foca,
  fora,
  hiCache,
  hindsight,
  type LinearSampling,
  type MeasuredQuality,
  type MeasuredSolver,
  magCache,
  newton,
  type PlacedSchedule,
  type PsnrOfImages,
  type Qualities,
  type QualityName,
  qualityNames,
  type Sampling,
  type SolverTarget,
  solverTargets,
  taylorSeer,
  teaCache,
  toca,
  toMultistep,
} from "../methods/index.js";
export { type Device, devices } from "../platform/device.js";
export type { ConversionProgress, DownloadProgress, ModelPlace } from "../platform/platform.js";
export type { EngineDevice } from "../runtime/engine.js";
export {
  type MultistepSolver,
  type NamedSampler,
  namedSamplers,
  type SamplerChoice,
  type SamplerName,
  type SamplerOption,
  type SamplerSettings,
  type SamplerWithSettings,
  type SchedulerConfig,
  type TimestepSpacing,
  timestepSpacings,
} from "../samplers/index.js";
export { DiffusionPipeline, type GenerationStream } from "./diffusion-pipeline.js";
export type { Shown } from "./family.js";
export type { ClassNames } from "./labels.js";
export type { LoraOption, PretrainedOptions } from "./pretrained-options.js";
export type { GenerationReport } from "./report.js";
export { type GenerateOptions, type OutputType, outputTypes, type Phase, type StepProgress } from "./request.js";
export type { GeneratedImage, GenerationResult } from "./result.js";
export type { SubjectOption, SubjectOptions } from "./subject-options.js";
