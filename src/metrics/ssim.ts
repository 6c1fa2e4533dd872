import { FemoError } from "../errors.js";
import { type Pixels, pairPixels } from "./pixels.js";

const K1 = 0.01;
const K2 = 0.03;

/**
 * Which window means are taken over: an 11x11 Gaussian of sigma 1.5, as in the paper, or 7x7 pixels that count alike, as
 * scikit-image and cache-dit do unless told otherwise.
 */
export type SsimWindow = "gaussian" | "uniform7";

interface Window {
  /** Its outer product with itself is the window; it sums to 1. */
  readonly kernel: Float64Array;
  /** What variances are multiplied by: n / (n - 1) of samples, or 1. */
  readonly correction: number;
}

const windows: Readonly<Record<SsimWindow, Window>> = {
  gaussian: { kernel: gaussian(11, 1.5), correction: 1 },
  uniform7: { kernel: new Float64Array(7).fill(1 / 7), correction: 49 / 48 },
};

/**
 * Structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13), mean over windows and channels:
 *
 *   SSIM = (2·μ_p·μ_q + C₁)(2·σ_pq + C₂) / ((μ_p² + μ_q² + C₁)(σ_p² + σ_q² + C₂)),  C₁ = (0.01·L)²,  C₂ = (0.03·L)²
 *
 * with L = white − black and moments weighted by the window. Only windows that lie inside the image count. Every RGB
 * channel is compared on its own. `gaussian` is what scikit-image computes with `gaussian_weights=True,
 * use_sample_covariance=False`; `uniform7` what it computes unless told, with variances of samples. Black counts as 0, so
 * that an image has the same score as bytes and as planes in [−1, 1].
 *
 * @returns −1 … 1; 1 for identical images
 * @throws FemoError E_IMAGE if the data of an image does not fit its size; E_OPTION if the two cannot be compared or are
 *   smaller than the window
 */
export function ssim(a: Pixels, b: Pixels, window: SsimWindow = "gaussian"): number {
  const { channels, range, width, height } = pairPixels(a, b);
  const { kernel, correction } = windows[window];
  const side = kernel.length;
  if (width < side || height < side) {
    throw new FemoError(
      "E_OPTION",
      `ssim: expected images of at least ${side}x${side}, the size of the window, found ${width}x${height}.`,
    );
  }
  const c1 = (K1 * range) ** 2;
  const c2 = (K2 * range) ** 2;
  let sum = 0;
  let count = 0;
  for (const [p, q] of channels) {
    const mean = (x: Float64Array) => windowMeans(x, width, height, kernel);
    const [muP, muQ] = [mean(p), mean(q)];
    const [pp, qq, pq] = [mean(product(p, p)), mean(product(q, q)), mean(product(p, q))];
    for (let i = 0; i < muP.length; i++) {
      const mp = muP[i] as number;
      const mq = muQ[i] as number;
      const varianceP = correction * ((pp[i] as number) - mp * mp);
      const varianceQ = correction * ((qq[i] as number) - mq * mq);
      const covariance = correction * ((pq[i] as number) - mp * mq);
      sum += ((2 * mp * mq + c1) * (2 * covariance + c2)) / ((mp * mp + mq * mq + c1) * (varianceP + varianceQ + c2));
    }
    count += muP.length;
  }
  return sum / count;
}

function gaussian(side: number, sigma: number): Float64Array {
  const centre = (side - 1) / 2;
  const weights = Float64Array.from({ length: side }, (_, i) => Math.exp(-((i - centre) ** 2) / (2 * sigma ** 2)));
  const sum = weights.reduce((s, w) => s + w, 0);
  return weights.map((w) => w / sum);
}

function product(p: Float64Array, q: Float64Array): Float64Array {
  const found = new Float64Array(p.length);
  for (let i = 0; i < p.length; i++) found[i] = (p[i] as number) * (q[i] as number);
  return found;
}

/** Mean of every window inside the plane.  [height, width] → [height − side + 1, width − side + 1] */
function windowMeans(plane: Float64Array, width: number, height: number, kernel: Float64Array): Float64Array {
  const columns = width - kernel.length + 1;
  const rows = height - kernel.length + 1;
  const across = new Float64Array(height * columns);
  for (let y = 0; y < height; y++) {
    for (const [k, weight] of kernel.entries()) addTo(across, y * columns, plane, y * width + k, columns, weight);
  }
  const means = new Float64Array(rows * columns);
  for (const [k, weight] of kernel.entries()) addTo(means, 0, across, k * columns, means.length, weight);
  return means;
}

/** Adds `count` numbers, times a weight, to others. */
function addTo(to: Float64Array, at: number, from: Float64Array, start: number, count: number, weight: number): void {
  for (let i = 0; i < count; i++) to[at + i] = (to[at + i] as number) + weight * (from[start + i] as number);
}
