import { type Bindings, bindDim, type Dim, sizeOf } from "../graph/index.js";
import { type At, type Method, tokenCount, X0 } from "../methods/index.js";
import { BATCH, type ChosenSite, type Cut, canonical } from "../tracing/index.js";
import type { Backbone } from "./backbone.js";
import { forecastX0Flops, learnX0Flops } from "./denoised-state.js";
import { cachesOf, graphOf, isFull, kernelFlops } from "./feature-state.js";

/** Images that go through a step together: how many, and what the symbols of their graphs are, rows among them. */
export interface StepBatch {
  readonly images: number;
  readonly bindings: Bindings;
}

/** Where a step stands among how many. */
type StepAt = Pick<At, "step" | "numSteps">;

/** How many tokens a step computes of each feature of which it computes some. */
export const chosenTokens = (
  { tokens }: Method,
  chosen: readonly ChosenSite[],
  at: StepAt,
  sizes: Bindings,
): number[] =>
  chosen.map(({ place, shape }) => tokenCount(tokens?.ratio(at, place) ?? 0, bindDim(shape[1] as Dim, sizes)));

/** Floating-point operations of a run of one of a method's cuts. @param bindings the rows of the batch, and the sizes of its images */
export function cutFlops(backbone: Backbone, method: Method, cut: Cut, at: StepAt, bindings: Bindings): number {
  const { network, forecasts, chosen } = backbone.cut(graphOf(cut, method));
  const counts = chosenTokens(method, chosen, at, bindings);
  const tokens = Object.fromEntries(chosen.map((site, i) => [site.tokens, counts[i] as number]));
  return network.flops({ ...bindings, ...tokens, features: forecasts.length });
}

/** The same of all steps of a batch whose kinds are known, with what is learnt from them and what is walked again. */
export function stepsFlops(backbone: Backbone, method: Method, kinds: readonly string[], batch: StepBatch): number {
  const { cuts, forecaster, hindsight } = method;
  const { images, bindings } = batch;
  const x0 = {
    forecaster: Object.values(cuts).includes(X0) ? forecaster : undefined,
    size: sizeOf(backbone.sampleDims(bindings)),
  };
  const run = (cut: Cut | typeof X0, step: number): number => {
    if (cut !== X0) return cutFlops(backbone, method, cut, { step, numSteps: kinds.length }, bindings);
    return x0.forecaster ? images * forecastX0Flops(x0.forecaster, x0.size) : 0;
  };
  const caches = cachesOf(method);
  const learnt = ({ capture: region }: Cut): number => {
    const taught = region && caches.find(({ capture }) => canonical(capture.capture) === canonical(region));
    return taught ? kernelFlops(backbone, taught, bindings) : 0;
  };
  const learntX0 = x0.forecaster ? images * learnX0Flops(x0.forecaster, x0.size, method.measure) : 0;
  let [sum, since] = [0, 0];
  for (const [step, kind] of kinds.entries()) {
    const cut = cuts[kind] as Cut | typeof X0;
    const cost = run(cut, step);
    sum += cost + (cut === X0 ? 0 : learnt(cut));
    if (isFull(cut, method)) {
      sum += learntX0 + (hindsight ? since : 0);
      since = 0;
    } else since += cost;
  }
  return sum;
}

/** The same of all that is made of timesteps and conditions before the first step. */
export function conditioningFlops(backbone: Backbone, steps: number, conditions: number, sizes: Bindings): number {
  const rows = { condition: conditions, pair: steps * conditions };
  return (["condition", "pair"] as const)
    .map((hoisted) => ({ ...backbone.cut({ hoisted }), rows: rows[hoisted] }))
    .filter(({ hoisted }) => hoisted.length > 0)
    .reduce((sum, { network, rows }) => sum + network.flops({ ...sizes, [BATCH]: rows }), 0);
}
