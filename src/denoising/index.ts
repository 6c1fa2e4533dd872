export { concat, relativeChange } from "./arrays.js";
export { Backbone } from "./backbone.js";
export type { MeasuredForecast } from "./coefficients.js";
export { Conditioning, type Conditions } from "./conditioning.js";
export { denoise } from "./denoise.js";
export { computedBytes, defaultDtype, type Keep, type ModelDtype, modelDtypes, weightsIn } from "./dtype.js";
export { cachesOf, graphKinds, graphOf, isFull, kernelsOf } from "./feature-state.js";
export { chosenTokens, conditioningFlops, type StepBatch, stepsFlops } from "./flops.js";
export { type GuidanceRow, guidanceRows } from "./guidance.js";
export type {
  Denoised,
  Denoising,
  DenoisingStep,
  ImageStart,
  Observed,
  Observer,
  Sampled,
  StepRecord,
} from "./records.js";
