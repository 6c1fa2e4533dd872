import { FemoError } from "../errors.js";
import { choleskyRows, type Matrix, type PauseOptions, pauses, timesTransposed, zeros } from "./matrix.js";

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
  const centred = centre(features);
  const { count, mean, rows } = centred;
  let trace = 0;
  for (const value of rows.data) trace += value * value;
  if (count <= mean.length) return { count, mean, trace, root: rows };
  return fitMoments({ count, mean, covariance: await gramOfColumns(rows, options) }, options);
}

/** Features minus their mean, over the root of N - 1. */
function centre(features: readonly ArrayLike<number>[]): { count: number; mean: Float64Array; rows: Matrix } {
  const count = features.length;
  checkCount(count);
  const d = features[0]?.length ?? 0;
  if (features.some(({ length }) => length !== d)) {
    throw new FemoError("E_OPTION", `moments: expected features of one length, found ${d} and others`);
  }
  const mean = new Float64Array(d);
  for (const row of features) for (let i = 0; i < d; i++) mean[i] = (mean[i] as number) + (row[i] as number) / count;
  const rows = zeros(count, d);
  const scale = 1 / Math.sqrt(count - 1);
  for (const [k, row] of features.entries()) {
    for (let i = 0; i < d; i++) rows.data[k * d + i] = ((row[i] as number) - (mean[i] as number)) * scale;
  }
  return { count, mean, rows };
}

/** X^T X, in parts of rows that are turned round: their columns then lie together. */
async function gramOfColumns({ rows, columns, data }: Matrix, options: PauseOptions): Promise<Matrix> {
  const sum = zeros(columns, columns);
  const pause = pauses(options);
  for (let start = 0; start < rows; start += PART) {
    const length = Math.min(PART, rows - start);
    const turned = zeros(columns, length);
    for (let k = 0; k < length; k++) {
      for (let i = 0; i < columns; i++) turned.data[i * length + k] = data[(start + k) * columns + i] as number;
    }
    const part = await timesTransposed(turned, turned, options);
    for (let i = 0; i < sum.data.length; i++) sum.data[i] = (sum.data[i] as number) + (part.data[i] as number);
    await pause();
  }
  return sum;
}

const PART = 1024;
