/**
 * How close an image is to another.
 * @module femo/metrics
 */
export type { BytePixels, FloatPlanes, Pixels } from "./pixels.js";
export { psnr } from "./psnr.js";
export { type SsimWindow, ssim } from "./ssim.js";
