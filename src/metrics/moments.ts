import { FemoError } from "../errors.js";
import { choleskyRows, type Matrix, type PauseOptions, timesTransposed, transposed, zeros } from "./matrix.js";

/** Mean and covariance of features, the latter divided by N - 1. */
export interface Moments {
  /** N; undefined of a file that does not say it. */
  readonly count: number | undefined;
  /** [d] */
  readonly mean: Float64Array;
  /** [d, d] */
  readonly covariance: Matrix;
}

/**
 * Sums over features, as they come: of x - s and of (x - s)(x - s)^T in float64, with a fixed shift s near their mean, so
 * that little cancels. Sums with the same shift, of other images, add up.
 */
export class MomentSums {
  readonly shift: Float64Array;
  #count = 0;
  readonly #sum: Float64Array;
  /** Of entries on and right of the diagonal. */
  readonly #products: Matrix;

  /** @param shift [d], such as the mean of the first features */
  constructor(shift: ArrayLike<number>) {
    this.shift = Float64Array.from(shift);
    this.#sum = new Float64Array(shift.length);
    this.#products = zeros(shift.length, shift.length);
  }

  /** N, so far. */
  get count(): number {
    return this.#count;
  }

  /** @param features [d] @throws FemoError E_OPTION if they have another length than the shift */
  add(features: ArrayLike<number>): void {
    const d = this.shift.length;
    if (features.length !== d) {
      throw new FemoError("E_OPTION", `moments: expected features of length ${d}, found ${features.length}`);
    }
    const x = this.shift.map((s, i) => (features[i] as number) - s);
    const { data } = this.#products;
    this.#count++;
    for (let i = 0; i < d; i++) {
      const value = x[i] as number;
      this.#sum[i] = (this.#sum[i] as number) + value;
      if (value === 0) continue;
      for (let j = i, at = i * d + i; j < d; j++, at++) data[at] = (data[at] as number) + value * (x[j] as number);
    }
  }

  /** Takes in the sums of other images. @throws FemoError E_OPTION if they are about another shift */
  merge(other: MomentSums): void {
    if (other.shift.length !== this.shift.length || other.shift.some((s, i) => s !== this.shift[i])) {
      throw new FemoError(
        "E_OPTION",
        "moments: expected sums about the same shift, found others. Give all shards one.",
      );
    }
    this.#count += other.#count;
    for (const [i, value] of other.#sum.entries()) this.#sum[i] = (this.#sum[i] as number) + value;
    const [own, more] = [this.#products.data, other.#products.data];
    for (let i = 0; i < own.length; i++) own[i] = (own[i] as number) + (more[i] as number);
  }

  /** @throws FemoError E_OPTION of less than two */
  moments(): Moments {
    checkCount(this.#count);
    const d = this.shift.length;
    const offset = this.#sum.map((value) => value / this.#count);
    const covariance = zeros(d, d);
    for (let i = 0; i < d; i++) {
      for (let j = i; j < d; j++) {
        const sum = (this.#products.data[i * d + j] as number) - (this.#sum[i] as number) * (offset[j] as number);
        const value = sum / (this.#count - 1);
        covariance.data[i * d + j] = value;
        covariance.data[j * d + i] = value;
      }
    }
    return { count: this.#count, mean: this.shift.map((s, i) => s + (offset[i] as number)), covariance };
  }
}

function checkCount(count: number): void {
  if (count >= 2) return;
  throw new FemoError("E_OPTION", `moments: expected two images or more, found ${count}: one has no covariance`);
}

/** What the Frechet distance takes of a set: its Gaussian. */
export interface GaussianFit {
  readonly count: number | undefined;
  /** [d] */
  readonly mean: Float64Array;
  /** Of the covariance. */
  readonly trace: number;
  /** R with R^T R = covariance, [rank or more, d]. */
  readonly root: Matrix;
}

/** Of a mean and a covariance, which may be singular. It takes some seconds at d = 2048, and is worth keeping. */
export async function fitMoments(moments: Moments, options: PauseOptions = {}): Promise<GaussianFit> {
  const { count, mean, covariance } = moments;
  const d = mean.length;
  if (covariance.rows !== d || covariance.columns !== d) {
    const found = `${d} and [${covariance.rows}, ${covariance.columns}]`;
    throw new FemoError("E_OPTION", `moments: expected a mean and a covariance of one size, found ${found}`);
  }
  const symmetric = zeros(d, d);
  let trace = 0;
  for (let i = 0; i < d; i++) {
    trace += covariance.data[i * d + i] as number;
    for (let j = 0; j < d; j++) {
      symmetric.data[i * d + j] = ((covariance.data[i * d + j] as number) + (covariance.data[j * d + i] as number)) / 2;
    }
  }
  if (!Number.isFinite(trace) || !mean.every(Number.isFinite)) {
    throw new FemoError("E_OPTION", "moments: expected finite numbers, found others. Is the file whole?");
  }
  return { count, mean, trace, root: await choleskyRows(symmetric, options) };
}

/**
 * Of features. Fewer than they are long need no covariance: the centred features themselves are its root.
 * @param features each [d]
 * @throws FemoError E_OPTION of less than two, or of different lengths
 */
export async function fitFeatures(
  features: readonly ArrayLike<number>[],
  options: PauseOptions = {},
): Promise<GaussianFit> {
  const { count, mean } = meanOf(features);
  if (count > mean.length)
    return fitMoments({ count, mean, covariance: await covarianceOf(features, mean, options) }, options);
  const root = centred(features, mean, 0, count);
  let trace = 0;
  for (const value of root.data) trace += value * value;
  return { count, mean, trace, root };
}

/** @throws FemoError E_OPTION of less than two features, or of different lengths */
function meanOf(features: readonly ArrayLike<number>[]): { count: number; mean: Float64Array } {
  const count = features.length;
  checkCount(count);
  const d = features[0]?.length ?? 0;
  if (features.some(({ length }) => length !== d)) {
    throw new FemoError("E_OPTION", `moments: expected features of one length, found ${d} and others`);
  }
  const mean = new Float64Array(d);
  for (const row of features) for (let i = 0; i < d; i++) mean[i] = (mean[i] as number) + (row[i] as number) / count;
  return { count, mean };
}

/** Some of the features minus their mean, over the root of N - 1. */
function centred(features: readonly ArrayLike<number>[], mean: Float64Array, start: number, end: number): Matrix {
  const d = mean.length;
  const rows = zeros(end - start, d);
  const scale = 1 / Math.sqrt(features.length - 1);
  for (let k = start; k < end; k++) {
    const row = features[k] as ArrayLike<number>;
    for (let i = 0; i < d; i++) rows.data[(k - start) * d + i] = ((row[i] as number) - (mean[i] as number)) * scale;
  }
  return rows;
}

/** In parts of features that are turned round: what is multiplied then lies together. */
async function covarianceOf(
  features: readonly ArrayLike<number>[],
  mean: Float64Array,
  options: PauseOptions,
): Promise<Matrix> {
  const d = mean.length;
  const sum = zeros(d, d);
  for (let start = 0; start < features.length; start += PART) {
    const part = transposed(centred(features, mean, start, Math.min(start + PART, features.length)));
    const products = await timesTransposed(part, part, options);
    for (let i = 0; i < sum.data.length; i++) sum.data[i] = (sum.data[i] as number) + (products.data[i] as number);
  }
  return sum;
}

const PART = 1024;
