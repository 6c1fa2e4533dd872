import { FemoError } from "../errors.js";
import { type Pixels, pairPixels } from "./pixels.js";

const WINDOW = 11; // pixels
const SIGMA = 1.5; // pixels
const K1 = 0.01;
const K2 = 0.03;

/**
 * Structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13), mean over windows and channels:
 *
 *   SSIM = (2·μ_p·μ_q + C₁)(2·σ_pq + C₂) / ((μ_p² + μ_q² + C₁)(σ_p² + σ_q² + C₂)),  C₁ = (0.01·L)²,  C₂ = (0.03·L)²
 *
 * with L = white − black and moments weighted by an 11×11 Gaussian of σ = 1.5 that sums to 1 (no sample correction).
 * Only windows that lie inside the image count. Every RGB channel is compared on its own. This is what scikit-image
 * computes with `gaussian_weights=True, use_sample_covariance=False`. Black counts as 0, so that an image has the same
 * score as bytes and as planes in [−1, 1].
 *
 * @returns −1 … 1; 1 for identical images
 * @throws FemoError E_IMAGE if the data of an image does not fit its size; E_OPTION if the two cannot be compared or are
 *   smaller than the window
 */
export function ssim(a: Pixels, b: Pixels): number {
  const { channels, range, width, height } = pairPixels(a, b);
  if (width < WINDOW || height < WINDOW) {
    throw new FemoError(
      "E_OPTION",
      `ssim: expected images of at least ${WINDOW}x${WINDOW}, the size of the window, found ${width}x${height}.`,
    );
  }
  const c1 = (K1 * range) ** 2;
  const c2 = (K2 * range) ** 2;
  let sum = 0;
  let windows = 0;
  for (const [p, q] of channels) {
    const mean = (x: Float64Array) => windowMeans(x, width, height);
    const [muP, muQ] = [mean(p), mean(q)];
    const [pp, qq, pq] = [mean(product(p, p)), mean(product(q, q)), mean(product(p, q))];
    for (let i = 0; i < muP.length; i++) {
      const [mp, mq] = [muP[i] as number, muQ[i] as number];
      const varianceP = (pp[i] as number) - mp * mp;
      const varianceQ = (qq[i] as number) - mq * mq;
      const covariance = (pq[i] as number) - mp * mq;
      sum += ((2 * mp * mq + c1) * (2 * covariance + c2)) / ((mp * mp + mq * mq + c1) * (varianceP + varianceQ + c2));
    }
    windows += muP.length;
  }
  return sum / windows;
}

/** One-dimensional Gaussian of the window; its outer product with itself is the window.  [WINDOW] */
const kernel = gaussian();

function gaussian(): Float64Array {
  const centre = (WINDOW - 1) / 2;
  const weights = Float64Array.from({ length: WINDOW }, (_, i) => Math.exp(-((i - centre) ** 2) / (2 * SIGMA ** 2)));
  const sum = weights.reduce((s, w) => s + w, 0);
  return weights.map((w) => w / sum);
}

const product = (p: Float64Array, q: Float64Array): Float64Array => p.map((v, i) => v * (q[i] as number));

/** Gaussian mean of every window inside the plane.  [height, width] → [height − 10, width − 10] */
function windowMeans(plane: Float64Array, width: number, height: number): Float64Array {
  const columns = width - WINDOW + 1;
  const rows = height - WINDOW + 1;
  const across = new Float64Array(height * columns);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < columns; x++) {
      let sum = 0;
      for (let k = 0; k < WINDOW; k++) sum += (kernel[k] as number) * (plane[y * width + x + k] as number);
      across[y * columns + x] = sum;
    }
  }
  const means = new Float64Array(rows * columns);
  for (let i = 0; i < means.length; i++) {
    let sum = 0;
    for (let k = 0; k < WINDOW; k++) sum += (kernel[k] as number) * (across[i + k * columns] as number);
    means[i] = sum;
  }
  return means;
}
