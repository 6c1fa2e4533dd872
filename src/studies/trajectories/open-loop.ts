import { FemoError } from "../../errors.js";
import { combination, unit, zeros } from "../../methods/forecasts/forecaster.js";
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
  let memories = [...new Set(memoryOf)].map((): Known => {
    const state = Array.from({ length: stateSize(forecaster) }, () => zeros(positions.length));
    return { memory: forecaster.start(image), state };
  });
  for (const [step, isFull] of full.entries()) {
    const position = positions[step] as number;
    if (isFull) {
      const truth = unit(positions.length, step);
      memories = memories.map(({ memory, state }, m) => {
        const vectors = [...state, truth]; // [S; F]
        const prediction = forecaster.combine(memory, position);
        const own = rows.filter((_, row) => memoryOf[row] === m);
        const adapted =
          forecaster.adapt && prediction
            ? forecaster.adapt(memory, summed(own.map(({ gram }) => gramOf(vectors, gram))), prediction)
            : memory;
        const moved = forecaster.update(adapted, { position, differences: step > firstDifference });
        const averages = moved.rows.map((weights) => combination(weights, vectors));
        return { memory: moved.memory, state: [...[truth, ...state].slice(0, forecaster.history), ...averages] };
      });
    }
    const known = memories;
    yield {
      step,
      full: isFull,
      forecast(later) {
        const forecasts = known.map(({ memory, state }) =>
          combination(forecaster.combine(memory, positions[later] as number) as readonly number[], state),
        );
        return memoryOf.map((m) => forecasts[m] as readonly number[]);
      },
      betas: forecaster.beta && memoryOf.map((m) => forecaster.beta?.(known[m]?.memory) as number),
    };
  }
}

/** What is known of the rows that share a memory: S, each of it as weights over the features of all steps. */
interface Known {
  readonly memory: unknown;
  readonly state: readonly (readonly number[])[];
}

/** Inner products of vectors that are weights over the features. */
const gramOf = (vectors: readonly (readonly number[])[], gram: Gram): Gram =>
  vectors.map((a) => vectors.map((b) => innerOf(gram, a, b)));

/** x G y^T of weights of which most are zero, as those of all but full steps are. */
function innerOf(gram: Gram, x: readonly number[], y: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) {
    const weight = x[i] as number;
    if (weight === 0) continue;
    const row = gram[i] as readonly number[];
    let product = 0;
    for (let j = 0; j < y.length; j++) product += (y[j] as number) * (row[j] as number);
    sum += weight * product;
  }
  return sum;
}

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
  const truth = gram[step] as readonly number[];
  const norm2 = truth[step] as number;
  const product = weights.reduce((sum, w, i) => sum + w * (truth[i] as number), 0);
  const off = weights.with(step, (weights[step] as number) - 1);
  const off2 = Math.max(0, innerOf(gram, off, off));
  const forecast2 = off2 + 2 * product - norm2;
  const scale = Math.sqrt(Math.max(0, norm2 * forecast2));
  return {
    relativeError: norm2 > 0 ? Math.sqrt(off2 / norm2) : 0,
    cosine: scale > 0 ? Math.max(-1, Math.min(1, product / scale)) : 0,
  };
}
