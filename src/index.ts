/**
 * Diffusion transformers, faster without training: features are forecast instead of computed. Begin with
 * {@link DiffusionPipeline.fromPretrained} and {@link DiffusionPipeline.generate}.
 * @module femo
 */
export { FemoError, type FemoErrorCode } from "./errors.js";
export {
  decodePng,
  encodePng,
  type GenerationParameters,
  gridImage,
  parametersText,
  type RgbImage,
} from "./images/index.js";
export { psnr, ssim } from "./metrics/index.js";
export * from "./pipelines/index.js";
