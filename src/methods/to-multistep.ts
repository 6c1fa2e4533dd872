import { FemoError } from "../errors.js";
import {
  createSampler,
  flowPrediction,
  isSameLevel,
  isStochastic,
  type Leap,
  type Level,
  type MultistepSolver,
  processOf,
  type SamplerChoice,
  type SchedulerConfig,
  straightWeights,
} from "../samplers/index.js";
import { type CacheFacts, chosenCache } from "./choice.js";
import { blend, combination, unit, zeros } from "./forecasts/forecaster.js";
import { type Forecaster, stateSize } from "./forecasts/index.js";
import { type Method, plannedKinds, X0 } from "./method.js";
import type { QualityName } from "./qualities.js";
import { type CacheOptions, defaultPresets, methodOf } from "./settings.js";
import { solverInPlace } from "./solvers.js";

/**
 * How images are sampled with the cache, with DDIM without clipping or Euler's method of a flow, and what is known of caching
 * on the model. A spacing must land on its own list of timesteps, as "dit" does.
 */
export interface LinearSampling extends Partial<Omit<CacheFacts, "levels">>, Omit<SamplerChoice, "sampler"> {
  /** The model's: `pipeline.scheduler`. */
  readonly scheduler: SchedulerConfig;
}

/** The level at which a feature is the model's output. */
const OUTPUT = "output";

/**
 * A caching method at the level "output" or "x0" as a solver that takes its full steps alone, and gives the same images
 * but for rounding.
 *
 * With forecasts that are linear in past outputs all steps between two full ones are one linear step. In y = x/signal and
 * s = noise/signal, with D_j the x₀ predicted at full step j, the method is
 *
 *     y_(i+1) = (s_(i+1)/s_i)·y_i + (1 − s_(i+1)/s_i)·Σ_(j ≤ i) c_ij·D_j,
 *
 * whose c are found by walking all steps with symbols in place of y and D. With hindsight too: where it corrects y is linear
 * in the same D.
 *
 * @throws FemoError E_OPTION if the method looks before it decides, adapts to what it measures, has a beta for each image,
 *   keeps features elsewhere, or forecasts with weights that do not sum to 1, as FEMO with the momentum seed "feature";
 *   if the sampler is neither DDIM nor a flow's Euler, adds noise, clips, or lands beside its list; if the model of a diffusion
 *   predicts v; or as the sampler itself
 */
export function toMultistep(cache: CacheOptions | QualityName, sampling: LinearSampling): MultistepSolver {
  const { scheduler, presets = defaultPresets, schedules = [], qualities = {}, solvers = [], ...choice } = sampling;
  const levels = [OUTPUT, X0];
  const sampler = createSampler(scheduler, choice);
  if (isStochastic(sampler)) throw refused("scheduler", "that of a sampler without fresh noise", sampler.name);
  checkScheduler(scheduler);
  const { timesteps, leaps, spacing } = sampler;
  const how = { sampler: sampler.name, timestepSpacing: spacing, numInferenceSteps: timesteps.length };
  const { settings } = chosenCache(cache, { levels, presets, schedules, qualities, solvers }, how);
  if (settings.method === "calibrated") return solverInPlace(settings, solvers).solver;
  if ("beta" in settings && new Set([settings.beta].flat()).size > 1) {
    throw refused("cache: beta", "one for all images, as they have one solver", "several");
  }
  const method = methodOf(settings, { levels: [OUTPUT], chains: {}, marks: [] });
  const full = fullSteps(method, timesteps.length);
  const weights = featureWeights(method, full, (step) => sampler.position(step));
  const isX0 = Object.values(method.cuts).includes(X0) || scheduler.predictionType === "sample";
  const isFlow = processOf(scheduler) === "flow";
  return {
    sampler: "multistep",
    timesteps: timesteps.filter((_, step) => full[step]),
    table: multistepTable({ leaps, full, weights, of: isX0 ? "x0" : isFlow ? flowPrediction : "eps" }),
    ...(!isFlow && { finalAlphaBar: (leaps.at(-1) as Leap).to.signalVariance }),
  };
}

/** Which steps run the whole network. */
function fullSteps(method: Method, numSteps: number): boolean[] {
  const kinds = plannedKinds(method, numSteps);
  if (!kinds) throw refused("cache", "a method whose full steps are known beforehand", "one that looks");
  const full = kinds.map((kind) => kind === "full");
  const isLinear = (kind: string): boolean => {
    const cut = method.cuts[kind];
    const forecast = cut === X0 ? undefined : cut?.forecast;
    return cut === X0 || (forecast !== undefined && "level" in forecast && forecast.level === OUTPUT);
  };
  if (!kinds.every((kind) => kind === "full" || isLinear(kind))) {
    throw refused("cache", `a method that forecasts at the level "${OUTPUT}" or "${X0}"`, "another level");
  }
  if (!full[0]) throw refused("cache", "a full step to begin with", "a forecast");
  return full;
}

/** How far sums of weights may be from 1: rounding in float64, of differences of high order. */
const SUM_TOLERANCE = 1e-9;

/** Each step's feature as weights over the true ones.  [steps][full steps] */
export interface FeatureWeights {
  /** True, or forecast from those before. */
  readonly ahead: readonly (readonly number[])[];
  /** With hindsight: a forecast step's once the next full step has come, as far as one does. */
  readonly again: readonly (readonly number[] | undefined)[];
}

/** What a method makes of features, step by step. */
export function featureWeights(
  { forecaster, firstDifference, hindsight = false }: Pick<Method, "forecaster" | "firstDifference" | "hindsight">,
  full: readonly boolean[],
  position: (step: number) => number,
): FeatureWeights {
  const count = full.filter(Boolean).length;
  if (forecaster?.adapt) throw refused("cache", "a method with weights known beforehand", "one that adapts");
  let memory = forecaster?.start(0);
  let state = Array.from({ length: forecaster ? stateSize(forecaster) : 0 }, () => zeros(count));
  let seen = 0;
  const again: (readonly number[] | undefined)[] = full.map(() => undefined);
  const ahead = full.map((isFull, step) => {
    if (!isFull) return forecast(forecaster as Forecaster, memory, position(step), state);
    const feature = unit(count, seen++);
    if (forecaster) {
      const { memory: next, rows } = forecaster.update(memory, {
        position: position(step),
        differences: step > firstDifference,
      });
      const averages = rows.map((row) => combination(row, [...state, feature]));
      state = [...[feature, ...state].slice(0, forecaster.history), ...averages];
      memory = next;
      for (let cheap = step - 1; hindsight && cheap >= 0 && !full[cheap]; cheap--) {
        again[cheap] = forecast(forecaster, memory, position(cheap), state);
      }
    }
    return feature;
  });
  return { ahead, again };
}

function forecast(forecaster: Forecaster, memory: unknown, position: number, state: readonly number[][]): number[] {
  const weights = combination(forecaster.combine(memory, position) as readonly number[], state);
  const sum = weights.reduce((a, b) => a + b, 0);
  if (Math.abs(sum - 1) <= SUM_TOLERANCE) return weights;
  throw refused("cache", 'forecasts with weights that sum to 1 (momentumSeed "feature" has others)', `a sum of ${sum}`);
}

/** What a multistep table is made of. */
interface Walk {
  readonly leaps: readonly Leap[];
  /** Which steps run the whole network; the first does. */
  readonly full: readonly boolean[];
  readonly weights: FeatureWeights;
  /** What the features are: the predicted noise, the predicted x₀, or the velocity of a flow. */
  readonly of: "eps" | "x0" | typeof flowPrediction;
}

/**
 * Walks the straight x ← (noise′/noise)·x + (signal′ − signal·noise′/noise)·x₀ through all steps, where x and every feature are
 * weights over the first latent and D_0, D_1 …: c_i follows from the latents at full step i and the next.
 * @throws FemoError E_OPTION if a step lands elsewhere than where the next begins
 */
export function multistepTable({ leaps, full, weights, of }: Walk): number[][] {
  const width = 1 + full.filter(Boolean).length;
  const features: number[][] = [];
  const table: number[][] = [];
  let x = unit(width, 0);
  let start: { x: number[]; from: Level } | undefined;
  let behind = x; // where the last full step led
  /** x after a step that leaps to D. */
  const leapt = (step: number, denoised: readonly number[]): number[] => {
    const leap = straightWeights(leaps[step] as Leap);
    return blend(leap.x, x, leap.x0, denoised);
  };
  /** The signal in x that a feature, which is (x − `signalOf`·D)/noise, leaves: all of a velocity, ε − D. */
  const signalOf = ({ signal }: Level): number => (of === flowPrediction ? 1 : signal);
  /** D that features with these weights mean where x is. */
  const meant = (step: number, weights: readonly number[]): number[] => {
    const { from } = leaps[step] as Leap;
    const feature = combination(weights, features);
    return of === "x0" ? feature : blend(1 / signalOf(from), x, -from.noise / signalOf(from), feature);
  };
  leaps.forEach(({ from, to }, step) => {
    if (full[step]) {
      const denoised = unit(width, 1 + features.length);
      features.push(of === "x0" ? denoised : blend(1 / from.noise, x, -signalOf(from) / from.noise, denoised));
      start = { x, from };
      const first = full.lastIndexOf(true, step - 1) + 1;
      if (step > 0 && weights.again[first]) {
        x = behind;
        for (let cheap = first; cheap < step; cheap++) {
          x = leapt(cheap, meant(cheap, weights.again[cheap] as readonly number[]));
        }
      }
      x = leapt(step, denoised);
      behind = x;
    } else x = leapt(step, meant(step, weights.ahead[step] as readonly number[]));
    const following = leaps[step + 1];
    if (following && !isSameLevel(following.from, to)) {
      throw refused("timestepSpacing", "one that lands on its own list of timesteps", "one that lands beside it");
    }
    if (following && !full[step + 1]) return;
    if (start) table.push(row(start, { x, to }, features.length));
  });
  return table;
}

/** c of one leap from a full step to the next, over the D that are known. */
function row(start: { x: number[]; from: Level }, end: { x: number[]; to: Level }, count: number): number[] {
  const leap = straightWeights({ from: start.from, to: end.to });
  if (leap.x0 === 0) return unit(count, count - 1); // a leap of no length, whatever the weights are
  return blend(1 / leap.x0, end.x, -leap.x / leap.x0, start.x).slice(1, 1 + count);
}

function checkScheduler(scheduler: SchedulerConfig): void {
  if (processOf(scheduler) === "flow" && scheduler.sampler === "euler") return;
  if (scheduler.sampler !== "ddim") throw refused("scheduler", "that of DDIM, or Euler's of a flow", scheduler.sampler);
  if (scheduler.clipSample !== false)
    throw refused("scheduler: clipSample", "false, as clipping is not linear", "true");
  if (scheduler.predictionType === "v_prediction") {
    throw refused(
      "scheduler: predictionType",
      "epsilon or sample, as v forecast over steps is neither",
      "v_prediction",
    );
  }
}

const refused = (what: string, expected: string, found: string): FemoError =>
  new FemoError("E_OPTION", `${what}: expected ${expected}, found ${found}: there is no such solver`);
