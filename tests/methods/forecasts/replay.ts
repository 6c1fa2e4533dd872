import { expect } from "vitest";
import type { Forecaster } from "../../../src/methods/forecasts/index.js";

export interface Step {
  readonly position: number;
  readonly full: boolean;
  readonly differences: boolean;
}
export type Feature = (position: number) => Float64Array;

/** Any forecaster, whatever its memory. */
// biome-ignore lint/suspicious/noExplicitAny: a list of forecasters with different memories has no narrower type
export type AnyForecaster = Forecaster<any>;

const weighted = (weights: readonly number[], rows: readonly Float64Array[]): Float64Array =>
  (rows[0] as Float64Array).map((_, j) =>
    weights.reduce((sum, w, i) => sum + w * ((rows[i] as Float64Array)[j] as number), 0),
  );
const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);

/**
 * Applies U and c to arrays in float64, as the graphs do in float32.
 * @returns what is forecast for every step, full ones included, before the step is learnt from
 */
export function replay(
  forecaster: AnyForecaster,
  steps: readonly Step[],
  feature: Feature,
): (Float64Array | undefined)[] {
  const size = feature(0).length;
  let memory = forecaster.start(0);
  const { history, recent, averages } = forecaster;
  let state: Float64Array[] = Array.from({ length: history + averages }, () => new Float64Array(size));
  return steps.map(({ position, full, differences }) => {
    const weights = forecaster.combine(memory, position);
    const prediction = weights && weighted(weights, state);
    const unused = weights?.slice(recent, history) ?? [];
    if (unused.some((weight) => weight !== 0)) expect(unused, `step ${position}`).toEqual(unused.map(() => 0));
    if (full) {
      const truth = feature(position);
      const stacked = [...state, truth];
      const gram = stacked.map((a) => stacked.map((b) => dot(a, b)));
      if (weights && forecaster.adapt) memory = forecaster.adapt(memory, gram, weights);
      const { memory: next, rows } = forecaster.update(memory, { position, differences });
      if (rows.length !== averages) throw new Error(`${rows.length} rows for ${averages} averages`);
      state = [truth, ...state.slice(0, history - 1), ...rows.map((row) => weighted(row, stacked))];
      memory = next;
    }
    return prediction;
  });
}

/** Full steps at the given positions, then a forecast of one position more. */
export function forecastAt(
  forecaster: AnyForecaster,
  full: readonly number[],
  position: number,
  f: (t: number) => number,
): number {
  const steps = [...full, position].map((at, i) => ({ position: at, full: i < full.length, differences: true }));
  return replay(forecaster, steps, (t) => Float64Array.of(f(t))).at(-1)?.[0] as number;
}

/** A deterministic generator of numbers in [-1, 1). */
export function random(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) / 4294967296) * 2 - 1;
  };
}

/** A random walk in three dimensions, by position. */
export function trajectory(seed: number): Feature {
  const [next, held] = [random(seed), new Map<number, Float64Array>()];
  for (let t = -100; t <= 100; t++) {
    const last = held.get(t - 1) ?? Float64Array.of(next(), next(), next());
    held.set(
      t,
      last.map((x) => x + 0.3 * next()),
    );
  }
  return (position) => held.get(position) as Float64Array;
}

export function expectClose(
  found: readonly (Float64Array | undefined)[],
  wanted: readonly (Float64Array | undefined)[],
  tolerance = 1e-9,
): void {
  expect(found.map((a) => a?.length)).toEqual(wanted.map((b) => b?.length));
  found.forEach((a, i) => {
    const b = wanted[i] as Float64Array;
    const scale = Math.max(1, ...(b ?? []).map(Math.abs));
    a?.forEach((x, j) => {
      const error = Math.abs(x - (b[j] as number)) / scale;
      // An assertion costs a hundred times what it asserts here.
      if (!(error < tolerance)) expect(error, `step ${i}`).toBeLessThan(tolerance);
    });
  });
}
