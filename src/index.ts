export { FemoError, type FemoErrorCode } from "./errors.js";
export { decodePng, encodePng, gridImage, parametersText, type RgbImage } from "./images/index.js";
export { psnr, ssim } from "./metrics/index.js";
export * from "./pipelines/index.js";
export * from "./studies/index.js";
export type { DownloadProgress } from "./weights/hub/index.js";
