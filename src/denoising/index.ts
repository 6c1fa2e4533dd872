export { Backbone } from "./backbone.js";
export type { MeasuredForecast } from "./coefficients.js";
export { Conditioning, type Conditions } from "./conditioning.js";
export {
  type Denoised,
  type Denoising,
  type DenoisingStep,
  denoise,
  type ImageStart,
  type StepRecord,
} from "./denoise.js";
export { type ModelDtype, modelDtypes, type Quantize } from "./dtype.js";
export { cachesOf, graphOf, kernelsOf } from "./feature-state.js";
export { conditioningFlops, stepFlops } from "./flops.js";
export { type GuidanceRow, guidanceRows } from "./guidance.js";
