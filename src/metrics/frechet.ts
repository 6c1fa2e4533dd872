import { FemoError } from "../errors.js";
import { type PauseOptions, singularValues, timesTransposed } from "./matrix.js";
import type { GaussianFit } from "./moments.js";

/** The Frechet distance of two Gaussians (Heusel et al., arXiv 1706.08500), and what it is a sum of. */
export interface FrechetDistance {
  readonly value: number;
  /** |mu1 - mu2|^2 */
  readonly means: number;
  /** Of the covariances. */
  readonly traces: readonly [number, number];
  /** tr (S1 S2)^1/2, which counts twice. */
  readonly overlap: number;
}

/**
 * |mu1 - mu2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^1/2, in float64. With S = R^T R the last is the sum of the singular values
 * of R1 R2^T: never complex, exact for singular covariances, and for N features a matrix of N rows instead of d. Of a set
 * and itself it is 0.
 * @throws FemoError E_OPTION if the features differ in length
 */
export async function frechetDistance(
  a: GaussianFit,
  b: GaussianFit,
  options: PauseOptions = {},
): Promise<FrechetDistance> {
  if (a.mean.length !== b.mean.length) {
    const found = `${a.mean.length} and ${b.mean.length}`;
    throw new FemoError("E_OPTION", `Frechet distance: expected features of one length, found ${found}`);
  }
  let means = 0;
  for (const [i, x] of a.mean.entries()) means += (x - (b.mean[i] as number)) ** 2;
  const product = await timesTransposed(a.root, b.root, options);
  const overlap = product.data.length === 0 ? 0 : (await singularValues(product, options)).reduce((s, x) => s + x, 0);
  const value = means + a.trace + b.trace - 2 * overlap;
  return { value: Math.max(value, 0), means, traces: [a.trace, b.trace], overlap }; // rounding may go below 0
}

/**
 * About how much N samples of a Gaussian are from the Gaussian itself, though nothing is wrong with them: to first order in
 * 1/N, (1/N) (tr S + 1/2 sum_ij l_i l_j (1 + [i = j]) / (l_i + l_j)) with the eigenvalues l of S. Of two sets of samples
 * both count. Too little where N is not far above d.
 * @param eigenvalues of the covariance, none negative
 */
export function frechetBias(eigenvalues: Float64Array, count: number): number {
  let sum = 0;
  for (const a of eigenvalues) {
    sum += a / 2; // i = j once more
    for (let j = 0; j < eigenvalues.length; j++) {
      const b = eigenvalues[j] as number;
      if (a + b > 0) sum += (a * b) / (a + b);
    }
  }
  const trace = eigenvalues.reduce((total, value) => total + value, 0);
  return (trace + sum / 2) / count;
}

/** Of the covariance of a fit. */
export async function eigenvaluesOf({ root }: GaussianFit, options: PauseOptions = {}): Promise<Float64Array> {
  return (await singularValues(root, options)).map((value) => value * value);
}

/** The straight line through distances over 1/N, and where it ends. */
export interface ExtrapolatedDistance {
  /** At 1/N = 0. */
  readonly value: number;
  /** By which it grows with 1/N. */
  readonly slope: number;
  readonly points: readonly { readonly count: number; readonly value: number }[];
}

/** Numbers of images from `least` to all, evenly spaced. */
export const frechetCounts = (all: number, { least = 5000, points = 15 } = {}): number[] =>
  Array.from({ length: points }, (_, i) => Math.round(least + ((all - least) * i) / (points - 1)));

/**
 * FID at infinity (Chong and Forsyth, arXiv 1911.07023): distances of random subsets of several sizes, extrapolated along
 * a straight line in 1/N.
 */
export function extrapolateFrechet(
  points: readonly { readonly count: number; readonly value: number }[],
): ExtrapolatedDistance {
  const xs = points.map(({ count }) => 1 / count);
  const [meanX, meanY] = [xs, points.map(({ value }) => value)].map(
    (values) => values.reduce((a, b) => a + b, 0) / values.length,
  ) as [number, number];
  let [xx, xy] = [0, 0];
  for (const [i, { value }] of points.entries()) {
    xx += ((xs[i] as number) - meanX) ** 2;
    xy += ((xs[i] as number) - meanX) * (value - meanY);
  }
  if (!(xx > 0)) throw new FemoError("E_OPTION", "FID at infinity: expected distances of at least two sizes");
  const slope = xy / xx;
  return { value: meanY - slope * meanX, slope, points };
}
