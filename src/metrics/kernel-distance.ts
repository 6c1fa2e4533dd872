import { FemoError } from "../errors.js";
import { innerProduct, type Matrix, type PauseOptions, pauses, zeros } from "./matrix.js";
import { SubsetDrawer } from "./subsets.js";

/** Which subsets. */
export interface KernelDistanceOptions extends PauseOptions {
  /** Images of a subset, of either set. Default: 1000, or as many as the smaller set has. */
  readonly subsetSize?: number | undefined;
  /** Default: 100; one if the subsets are the sets. */
  readonly subsets?: number | undefined;
  /** Which subsets, as torch-fidelity draws them. Default: 2020. */
  readonly seed?: number | undefined;
}

/** KID, and how it was estimated. */
export interface KernelDistance {
  /** Mean over the subsets. Small negative values are right: the estimate has no bias. */
  readonly value: number;
  /** Standard deviation over the subsets (of all of them, not of a sample); 0 of one. */
  readonly deviation: number;
  readonly subsets: number;
  readonly subsetSize: number;
}

/**
 * KID (Binkowski et al., arXiv 1801.01401): the unbiased squared maximum mean discrepancy with the kernel (x y / d + 1)^3,
 * in float64.
 * @param a features, each [d]
 * @param b the same of the other set
 * @throws FemoError E_OPTION if features differ in length, or the sets have not so many images
 */
export async function kernelDistance(
  a: readonly ArrayLike<number>[],
  b: readonly ArrayLike<number>[],
  options: KernelDistanceOptions = {},
): Promise<KernelDistance> {
  const least = Math.min(a.length, b.length);
  const { subsetSize = Math.min(1000, least), seed = 2020 } = options;
  if (!(Number.isInteger(subsetSize) && subsetSize >= 2 && subsetSize <= least)) {
    throw new FemoError("E_OPTION", `KID: expected subsets of 2 to ${least} images, found ${subsetSize}`);
  }
  const isWhole = subsetSize === a.length && subsetSize === b.length;
  const { subsets = isWhole ? 1 : 100 } = options;
  const [x, y] = [featureMatrix(a), featureMatrix(b)];
  if (x.columns !== y.columns) {
    throw new FemoError("E_OPTION", `KID: expected features of one length, found ${x.columns} and ${y.columns}`);
  }
  const drawer = new SubsetDrawer(seed);
  const values: number[] = [];
  for (let i = 0; i < subsets; i++) {
    const [chosenX, chosenY] = [drawer.draw(a.length, subsetSize), drawer.draw(b.length, subsetSize)];
    values.push(await discrepancy(x, chosenX, y, chosenY, options));
  }
  const value = values.reduce((sum, one) => sum + one, 0) / subsets;
  const variance = values.reduce((sum, one) => sum + (one - value) ** 2, 0) / subsets;
  return { value, deviation: Math.sqrt(variance), subsets, subsetSize };
}

/** Features as rows of a matrix. @throws FemoError E_OPTION if they differ in length */
export function featureMatrix(features: readonly ArrayLike<number>[]): Matrix {
  const columns = features[0]?.length ?? 0;
  const matrix = zeros(features.length, columns);
  for (const [i, row] of features.entries()) {
    if (row.length !== columns) {
      throw new FemoError("E_OPTION", `features: expected one length, found ${columns} and ${row.length}`);
    }
    matrix.data.set(row, i * columns);
  }
  return matrix;
}

/** [sum_{i != j} k(x_i, x_j) + sum_{i != j} k(y_i, y_j)] / (m (m - 1)) - 2 sum_ij k(x_i, y_j) / m^2 */
async function discrepancy(
  x: Matrix,
  chosenX: Uint32Array,
  y: Matrix,
  chosenY: Uint32Array,
  options: PauseOptions,
): Promise<number> {
  const m = chosenX.length;
  const d = x.columns;
  const pause = pauses(options);
  const kernel = (p: Matrix, i: number, q: Matrix, j: number): number =>
    (innerProduct(p.data, i * d, q.data, j * d, d) / d + 1) ** 3;
  let [within, between] = [0, 0];
  for (let i = 0; i < m; i++) {
    const [xi, yi] = [chosenX[i] as number, chosenY[i] as number];
    for (let j = 0; j < m; j++) between += kernel(x, xi, y, chosenY[j] as number);
    for (let j = 0; j < i; j++) {
      within += kernel(x, xi, x, chosenX[j] as number) + kernel(y, yi, y, chosenY[j] as number);
    }
    await pause();
  }
  return (2 * within) / (m * (m - 1)) - (2 * between) / (m * m);
}
