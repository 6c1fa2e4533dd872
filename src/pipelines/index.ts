export {
  type CacheMethod,
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  cacheMethods,
} from "./cache-options.js";
export type { MeasuredForecast } from "./coefficients.js";
export { type Device, devices } from "./device.js";
export {
  DiffusionPipeline,
  type GeneratedImage,
  type GenerationResult,
  type PipelineParts,
  type PretrainedOptions,
} from "./diffusion-pipeline.js";
export { type ModelDtype, modelDtypes } from "./dtype.js";
export type { GenerationReport, StepRecord } from "./report.js";
export { type GenerateOptions, type OutputType, outputTypes, type StepProgress } from "./request.js";
