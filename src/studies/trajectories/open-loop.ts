import { FemoError } from "../../errors.js";
import { combination, inner, unit, zeros } from "../../methods/forecasts/forecaster.js";
import { type Forecaster, type Gram, stateSize } from "../../methods/forecasts/index.js";
import {
  type CacheMethod,
  type CacheOptions,
  type CacheSettings,
  cacheMethods,
  cacheSettings,
  defaultPresets,
  type Method,
  methodOf,
  methodTitle,
  plannedKinds,
} from "../../methods/index.js";
import { placeFullSteps } from "../../methods/placement.js";
import { checkFullSteps } from "../../pipelines/request.js";
import type { Trajectories, Trajectory } from "./record.js";

/** A method that forecasts a feature between full steps that are known beforehand. */
export interface OpenLoopMethod {
  readonly title: string;
  readonly settings: CacheSettings;
  readonly forecaster: Forecaster;
  readonly firstDifference: number;
  /** Of each step, whether it is a full one. */
  readonly full: readonly boolean[];
}

/** The methods that can be laid over a recorded path: those that forecast by a schedule, and do not walk steps again. */
export const forecastingMethods: readonly CacheMethod[] = cacheMethods.filter(
  (name) =>
    name !== "none" && scheduledMethod({ method: name, ...defaultPresets[name] } as CacheSettings) !== undefined,
);

/** @returns undefined if it is not of those that forecast a level by a schedule alone */
function scheduledMethod(settings: CacheSettings): Method | undefined {
  if (!("granularity" in settings) || !("interval" in settings)) return undefined;
  const method = methodOf(settings, { levels: [settings.granularity], chains: {}, marks: [] });
  return method.forecaster && !method.hindsight ? method : undefined;
}

/**
 * A method as it goes over recorded paths, at their level, whatever its own.
 * @param cache what is left out is as the model's presets have it
 * @throws FemoError E_OPTION naming each bad field; if it is not one of `forecastingMethods`, or has a guard; if its full steps
 *   are beyond the path, or so many were not placed on the model
 */
export function openLoopMethod(
  { level, presets, schedules, sampling, timesteps }: Trajectories,
  cache: CacheOptions,
): OpenLoopMethod {
  const given = typeof cache === "string" ? { method: cache } : cache;
  if (!forecastingMethods.includes(given?.method)) throw refused(cache);
  const chosen = cacheSettings({ ...given, granularity: level } as CacheOptions, presets, [level]);
  const settings = placeFullSteps(chosen, schedules, sampling);
  checkFullSteps(settings, timesteps.length);
  const method = scheduledMethod(settings);
  const kinds = method && plannedKinds(method, timesteps.length);
  if (!method?.forecaster || !kinds) throw refused(cache);
  return {
    title: methodTitle(settings.method),
    settings,
    forecaster: method.forecaster,
    firstDifference: method.firstDifference,
    full: kinds.map((kind) => kind === "full"),
  };
}

const refused = (cache: CacheOptions): FemoError =>
  new FemoError(
    "E_OPTION",
    `cache: expected one of ${forecastingMethods.join(", ")}, without errorBound, found ${JSON.stringify(cache)}: ` +
      "what others do depends on more than was recorded",
  );

/** What a method knows of a path when a step is over. */
export interface OpenLoopStep {
  readonly step: number;
  readonly full: boolean;
  /** The feature that it forecasts for a step, of each row, as weights over the features of all steps. */
  forecast(step: number): readonly (readonly number[])[];
  /** The momentum coefficient in force, of each row, if the method has one. */
  readonly betas: readonly number[] | undefined;
}

/**
 * Lays a method over the path of an image, open loop: at its full steps it sees the recorded features, however far off its
 * forecasts before them were. A method that adapts is shown the inner products that it is shown in a run; where all features
 * of a row have a memory in common (`betaPer`), those of the recorded one alone.
 */
export function* openLoop(
  { forecaster, firstDifference, full }: OpenLoopMethod,
  { image, rows }: Trajectory,
  positions: readonly number[],
): Generator<OpenLoopStep> {
  const memoryOf = rows.map((_, row) => (forecaster.memoryPer?.row ? row : 0));
  let memories: readonly unknown[] = [...new Set(memoryOf)].map(() => forecaster.start(image));
  let states = rows.map(() => Array.from({ length: stateSize(forecaster) }, () => zeros(positions.length)));

  for (const [step, isFull] of full.entries()) {
    const position = positions[step] as number;
    if (isFull) {
      const truth = unit(positions.length, step);
      const stacked = states.map((state) => [...state, truth]); // [S; F]
      memories = memories.map((memory, m) => {
        const prediction = forecaster.combine(memory, position);
        if (!forecaster.adapt || !prediction) return memory;
        const grams = stacked.flatMap((vectors, row) =>
          memoryOf[row] === m ? [gramOf(vectors, rows[row]?.gram as Gram)] : [],
        );
        return forecaster.adapt(memory, summed(grams), prediction);
      });
      const moved = memories.map((memory) =>
        forecaster.update(memory, { position, differences: step > firstDifference }),
      );
      memories = moved.map(({ memory }) => memory);
      states = stacked.map((vectors, row) => [
        ...[truth, ...vectors].slice(0, forecaster.history),
        ...(moved[memoryOf[row] as number]?.rows ?? []).map((weights) => combination(weights, vectors)),
      ]);
    }
    const [known, state] = [memories, states];
    yield {
      step,
      full: isFull,
      forecast: (later) =>
        state.map((vectors, row) => {
          const weights = forecaster.combine(known[memoryOf[row] as number], positions[later] as number);
          if (!weights) throw new Error("a forecast before the first full step");
          return combination(weights, vectors);
        }),
      betas: forecaster.beta && memoryOf.map((m) => forecaster.beta?.(known[m]) as number),
    };
  }
}

/** Inner products of vectors that are weights over the features. */
const gramOf = (vectors: readonly (readonly number[])[], gram: Gram): Gram =>
  vectors.map((a) => vectors.map((b) => inner(gram, a, b)));

const summed = (grams: readonly Gram[]): Gram =>
  (grams[0] as Gram).map((row, i) => row.map((_, j) => grams.reduce((sum, gram) => sum + (gram[i]?.[j] ?? 0), 0)));

/** How far a forecast is off. */
export interface ForecastMiss {
  /** |F - F^| / |F|; 0 if F is zero. */
  readonly relativeError: number;
  /** Of the angle between F and F^; 0 if one of them is zero. */
  readonly cosine: number;
}

/**
 * Measures a forecast by inner products.
 * @param weights over the features of all steps
 * @returns relative errors below about 1e-8 times the weights' size are rounding
 */
export function missOf(gram: Gram, weights: readonly number[], step: number): ForecastMiss {
  const truth = unit(weights.length, step);
  const off = weights.map((w, i) => w - (truth[i] as number));
  const norm2 = gram[step]?.[step] as number;
  const forecast2 = inner(gram, weights, weights);
  const scale = Math.sqrt(Math.max(0, norm2 * forecast2));
  return {
    relativeError: norm2 > 0 ? Math.sqrt(Math.max(0, inner(gram, off, off)) / norm2) : 0,
    cosine: scale > 0 ? Math.min(1, inner(gram, weights, truth) / scale) : 0,
  };
}
