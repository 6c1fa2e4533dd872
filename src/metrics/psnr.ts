import { type Pixels, pairPixels } from "./pixels.js";

/**
 * Peak signal-to-noise ratio 10·log₁₀(L²/MSE), MSE over all channels and pixels together and L = white − black.
 *
 * @returns decibels; higher is closer, Infinity for identical images
 * @throws FemoError E_IMAGE if the data of an image does not fit its size; E_OPTION if the two cannot be compared
 */
export function psnr(a: Pixels, b: Pixels): number {
  const { channels, range, width, height } = pairPixels(a, b);
  let sum = 0;
  for (const [p, q] of channels) {
    for (let i = 0; i < p.length; i++) sum += ((p[i] as number) - (q[i] as number)) ** 2;
  }
  const meanSquaredError = sum / (channels.length * width * height);
  return 10 * Math.log10(range ** 2 / meanSquaredError);
}
