/** A full step as a forecaster sees it. */
export interface FullStep {
  /** Where on the step axis: the signed step index, or any other variable in which to extrapolate. */
  readonly position: number;
  /** False while differences may not be formed yet: TaylorSeer's gate, step > firstEnhance - 2. */
  readonly differences: boolean;
}

/** Inner products of the rows of [S; F]: the state before an update, and the true feature as the last row. */
export type Gram = readonly (readonly number[])[];

/** Whether each cached feature, and each row of an image (with and without class, under guidance), is on its own. */
export interface MemoryScope {
  readonly feature: boolean;
  readonly row: boolean;
}

/**
 * A forecasting method. Past features are a state S of k tensors; every method is a linear map with scalar
 * coefficients, so it is written without tensors:
 *
 *     at a full step:      S <- U [S; F]        U: k x (k + 1)
 *     at a forecast step:  F^ = c S             c: k
 *
 * `Memory` is what the coefficients depend on; it is passed in and out and never changed in place.
 */
export interface Forecaster<Memory = unknown> {
  /** k, the number of tensors shaped like the feature that must be kept. */
  readonly stateSize: number;
  /** What has a memory of its own; nothing more than each image does unless it is said here. */
  readonly memoryPer?: MemoryScope;
  /** Memory before the first full step, of one image. */
  start(image: number): Memory;
  /** Rows of U, each over [S; F], and the memory after. */
  update(memory: Memory, step: FullStep): { readonly memory: Memory; readonly rows: readonly (readonly number[])[] };
  /** c, over S; undefined before the first full step. */
  combine(memory: Memory, position: number): readonly number[] | undefined;
  /**
   * Learns from a measured full step. `gram` is summed over all that the memory serves, so it is that of their
   * concatenation; `prediction` is what `combine` gave for the step before its update, over the S of `gram`.
   */
  adapt?(memory: Memory, gram: Gram, prediction: readonly number[]): Memory;
  /** The momentum coefficient in force, if the method has one. */
  beta?(memory: Memory): number;
}

/** Rows of coefficients with a one at `index`. */
export const unit = (length: number, index: number): number[] =>
  Array.from({ length }, (_, i) => (i === index ? 1 : 0));
export const zeros = (length: number): number[] => new Array<number>(length).fill(0);
/** a x + b y */
export const blend = (a: number, x: readonly number[], b: number, y: readonly number[]): number[] =>
  x.map((value, i) => a * value + b * (y[i] as number));
/** Row vector times matrix. */
export const rowTimes = (row: readonly number[], matrix: readonly (readonly number[])[]): number[] =>
  matrix.reduce<number[]>((sum, line, i) => blend(1, sum, row[i] as number, line), zeros(matrix[0]?.length ?? 0));

/** x^i / i! */
export function taylorTerm(x: number, i: number): number {
  let term = 1;
  for (let j = 1; j <= i; j++) term *= x / j;
  return term;
}

/** x G y^T over the leading rows of a Gram matrix. */
export function inner(gram: Gram, x: readonly number[], y: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    for (let j = 0; j < y.length; j++)
      sum += (x[i] as number) * (y[j] as number) * ((gram[i] as number[])[j] as number);
  }
  return sum;
}

/**
 * Squared error |F - c S|^2 and squared norm |F|^2 of a measured full step.
 * The inner products come in float32, so relative errors below about 1e-3 drown in rounding.
 */
export function measuredError(gram: Gram, prediction: readonly number[]): { error2: number; norm2: number } {
  const weights = [...prediction.map((c) => -c), 1];
  const norm2 = (gram.at(-1) as number[]).at(-1) as number;
  return { error2: Math.max(0, inner(gram, weights, weights)), norm2 };
}
