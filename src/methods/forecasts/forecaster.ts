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
 * A forecasting method. What it keeps of the past is a state S of k tensors shaped like the feature: the last h true
 * features, newest first, and r running averages. Every method is linear with scalar coefficients, so it is written
 * without tensors:
 *
 *     S = [H0 .. H(h-1), M1 .. Mr]
 *     at a full step:      H <- [F, H0 .. H(h-2)]     nothing is computed
 *                          M <- U [S; F]              U: r x (k + 1)
 *     at a forecast step:  F^ = c S                   c: k
 *
 * `Memory` is what the coefficients depend on; it is passed in and out and never changed in place. Features that have
 * not been seen and averages that have not begun are zero.
 */
export interface Forecaster<Memory = unknown> {
  /** h >= 1, true features that must be kept. */
  readonly history: number;
  /** How many of these forecasts are made of, 1 .. h: c is zero for the others, which only updates need. */
  readonly recent: number;
  /** r >= 0, running averages that must be kept. */
  readonly averages: number;
  /** What has a memory of its own; nothing more than each image does unless it is said here. */
  readonly memoryPer?: MemoryScope;
  /** Memory before the first full step, of one image. */
  start(image: number): Memory;
  /** Rows of U, each over [S; F], and the memory after. */
  update(memory: Memory, step: FullStep): { readonly memory: Memory; readonly rows: readonly (readonly number[])[] };
  /** c, over S; undefined before the first full step. */
  combine(memory: Memory, position: number): readonly number[] | undefined;
  /**
   * Learns from a measured full step, before its update. `gram` is summed over all that the memory serves, so it is
   * that of their concatenation; `prediction` is what `combine` gave for the step.
   */
  adapt?(memory: Memory, gram: Gram, prediction: readonly number[]): Memory;
  /** The momentum coefficient in force, if the method has one. */
  beta?(memory: Memory): number;
}

/** k, the tensors of a forecaster's state. */
export const stateSize = ({ history, averages }: Pick<Forecaster, "history" | "averages">): number =>
  history + averages;

/**
 * TaylorSeer's raw differences at the last full step (eq. 4): D0 = F, D'(i+1) = (D'i - Di) / delta, every order with
 * the last signed distance.
 */
export interface Differences {
  /** Position of the last full step. */
  readonly last: number;
  /** Weights of D0, D1, .. over the last true features, newest first; none before the first full step. */
  readonly rows: readonly (readonly number[])[];
}

export const noDifferences: Differences = { last: 0, rows: [] };

/** The differences up to `order` after one full step more, each over the newest `order` + 1 features. */
export function nextDifferences(old: Differences, step: FullStep, order: number): Differences {
  const rows = [unit(order + 1, 0)];
  for (let i = 0; step.differences && i < Math.min(order, old.rows.length); i++) {
    const before = [0, ...(old.rows[i] as readonly number[]).slice(0, -1)]; // one feature later
    const delta = step.position - old.last;
    rows.push(blend(1 / delta, rows[i] as number[], -1 / delta, before));
  }
  return { last: step.position, rows };
}

/**
 * F^ = sum of Di t_i over the raw differences D0 .. Dm. S = the last m + 1 features.
 * @param order m >= 0
 * @param term t_i, x signed steps after the last full one
 */
export function overDifferences(order: number, term: (x: number, i: number) => number): Forecaster<Differences> {
  const history = order + 1;
  return {
    history,
    recent: history,
    averages: 0,
    start: () => noDifferences,
    update: (differences, step) => ({ memory: nextDifferences(differences, step, order), rows: [] }),
    combine: ({ last, rows }, position) =>
      rows.length === 0
        ? undefined
        : rows.reduce((sum, row, i) => blend(1, sum, term(position - last, i), row), zeros(history)),
  };
}

/** Rows of coefficients with a one at `index`. */
export const unit = (length: number, index: number): number[] =>
  Array.from({ length }, (_, i) => (i === index ? 1 : 0));
export const zeros = (length: number): number[] => new Array<number>(length).fill(0);
/** a x + b y */
export const blend = (a: number, x: readonly number[], b: number, y: readonly number[]): number[] =>
  x.map((value, i) => a * value + b * (y[i] as number));

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

/** Sum of rows by their weights. */
export const combination = (weights: readonly number[], rows: readonly (readonly number[])[]): number[] =>
  rows.reduce<number[]>((sum, row, i) => blend(1, sum, weights[i] as number, row), zeros(rows[0]?.length ?? 0));
