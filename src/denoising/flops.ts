import type { Bindings } from "../graph/index.js";
import type { Method } from "../methods/index.js";
import { BATCH, type Cut, canonical } from "../tracing/index.js";
import type { Backbone } from "./backbone.js";
import { cachesOf, graphOf, kernelFlops } from "./feature-state.js";

/** Floating-point operations of a run of one of a method's cuts. @param bindings the rows of the batch, and the sizes of its images */
export function cutFlops(backbone: Backbone, method: Method, cut: Cut, bindings: Bindings): number {
  const { network, forecasts } = backbone.cut(graphOf(cut, method));
  return network.flops({ ...bindings, features: forecasts.length });
}

/** The same of a step of one kind: its graph, and what is done with the features that it captures. */
export function stepFlops(backbone: Backbone, method: Method, kind: string, bindings: Bindings): number {
  const cut = method.cuts[kind] as Cut;
  const taught = cachesOf(method).find(({ capture }) => canonical(capture.capture) === canonical(cut.capture));
  const learning = cut.capture && taught ? kernelFlops(backbone, taught, bindings) : 0;
  return cutFlops(backbone, method, cut, bindings) + learning;
}

/** The same of all that is made of timesteps and conditions before the first step. */
export function conditioningFlops(backbone: Backbone, steps: number, conditions: number, sizes: Bindings): number {
  const rows = { condition: conditions, pair: steps * conditions };
  return (["condition", "pair"] as const)
    .map((hoisted) => ({ ...backbone.cut({ hoisted }), rows: rows[hoisted] }))
    .filter(({ hoisted }) => hoisted.length > 0)
    .reduce((sum, { network, rows }) => sum + network.flops({ ...sizes, [BATCH]: rows }), 0);
}
