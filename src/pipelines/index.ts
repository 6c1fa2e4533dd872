export { type MeasuredForecast, type ModelDtype, modelDtypes, type StepRecord } from "../denoising/index.js";
export {
  adaptedFemo,
  type CacheMethod,
  type CacheOptions,
  type CachePresets,
  type CacheQuality,
  type CacheSettings,
  cacheMethods,
  chipmunk,
  dbCache,
  deltaDit,
  duca,
  femo,
  firstBlock,
  foca,
  fora,
  hiCache,
  hindsight,
  type MeasuredQuality,
  magCache,
  newton,
  type PlacedSchedule,
  type Qualities,
  type QualityName,
  qualityNames,
  type SamplingOfDdim,
  taylorSeer,
  teaCache,
  toca,
  toMultistep,
} from "../methods/index.js";
export { type Device, devices } from "../platform/device.js";
export type { ConversionProgress, DownloadProgress } from "../platform/platform.js";
export {
  type MultistepSolver,
  type NamedSampler,
  namedSamplers,
  type SamplerChoice,
  type SamplerName,
  type SamplerOption,
  type SchedulerConfig,
  type TimestepSpacing,
  timestepSpacings,
} from "../samplers/index.js";
export { DiffusionPipeline, type GenerationStream } from "./diffusion-pipeline.js";
export type { ClassNames } from "./labels.js";
export type { PretrainedOptions } from "./pretrained-options.js";
export type { GenerationReport } from "./report.js";
export { type GenerateOptions, type OutputType, outputTypes, type StepProgress } from "./request.js";
export type { GeneratedImage, GenerationResult } from "./result.js";
