import { chosenTokens, graphOf } from "../../denoising/index.js";
import { type Bindings, type FlopsConvention, type Node, nodeFlops } from "../../graph/index.js";
import {
  cacheLevels,
  cacheSettings,
  defaultPresets,
  type Method,
  methodOf,
  plannedKinds,
  X0,
} from "../../methods/index.js";
import { type Cut, canonical, type Model, partKinds, type TracedGraph, traceCut } from "../../tracing/index.js";
import type { Run, RunCost } from "./run.js";

/** Which nodes of a graph count, and as how much. */
export interface Counting {
  readonly convention: FlopsConvention;
  readonly counts: (node: Node) => boolean;
}

/** A step as its method has it run. */
export interface Step {
  /** A key of the method's cuts. */
  readonly kind: string;
  readonly cut: Cut;
  /** Operations of its graph. */
  flops(counting: Counting): number;
}

/**
 * The steps of runs on a model, each with the graph of its cut.
 * @param sizes what the model's symbols stand for, "batch" among them
 */
export function stepsOn(model: Model, sizes: Bindings): (run: Run) => Step[] {
  const [traced, counts] = [new Map<string, Traced>(), new Map<string, Step["flops"]>()];
  return ({ cache, numSteps, fullSteps }) => {
    const method = methodOf(cacheSettings(cache, defaultPresets, cacheLevels(model)), model);
    const kinds = plannedKinds(method, numSteps) ?? looked(numSteps, fullSteps);
    return kinds.map((kind, step) => {
      const cut = cutOf(method, kind);
      const key = canonical(cut);
      const { nodes, chosen } = remembered(traced, key, () => traceNodes(model, cut));
      const tokens = chosenTokens(method, chosen, { step, numSteps }, sizes);
      const bindings = { ...sizes, ...Object.fromEntries(chosen.map((site, i) => [site.tokens, tokens[i] as number])) };
      const flops = remembered(counts, `${key} ${tokens}`, () => counter(nodes, bindings));
      return { kind, cut, flops };
    });
  };
}

/** The cost of steps, one after the other. */
export const sumOf = (steps: readonly Step[], costOf: (step: Step) => number): RunCost => ({
  flops: steps.reduce((sum, step) => sum + costOf(step), 0),
  fullSteps: steps.filter(({ kind }) => kind === "full").length,
});

/** True if the node lies in a part of that kind, and of that name or a name that begins so. */
export const within = ({ parts }: Node, kind: string, prefix = ""): boolean =>
  parts.some((part) => part.kind === kind && part.name.startsWith(prefix));

/** True if the node computes a feature of the level "module"; forecasts do not. */
export const inModule = (node: Node): boolean => within(node, "module") && !within(node, partKinds.forecast);

/** Name of the weight with which the node multiplies, or nothing. */
export function weightOf({ inputs }: Node): string {
  const origin = inputs[1]?.origin;
  return origin?.kind === "weight" ? origin.tensor : "";
}

/** Which of the steps are full does not change the cost. */
const looked = (numSteps: number, fullSteps = numSteps): string[] =>
  Array.from({ length: numSteps }, (_, step) => (step < fullSteps ? "full" : "forecast"));

/**
 * A kind of step as the authors count it: modulations are computed anew at every step, and what a step leaves for later
 * ones, attention's masses among it, costs nothing.
 */
function cutOf(method: Method, kind: string): Cut {
  const cut = method.cuts[kind] as Cut | typeof X0;
  const whole: Cut = cut === X0 ? { forecast: { level: "output" } } : cut; // x0 leaves out all of the model
  const { capture: _captured, pass: _passed, scores: _masses, ...computed } = graphOf(whole, method);
  return { ...computed, hoisted: "inline" };
}

type Traced = Pick<TracedGraph, "chosen"> & { readonly nodes: readonly Node[] };

function traceNodes(model: Model, cut: Cut): Traced {
  const { graph, chosen } = traceCut(model, cut);
  return { nodes: graph.reachable().nodes, chosen };
}

/** Counts each way of counting once. */
function counter(nodes: readonly Node[], bindings: Bindings): Step["flops"] {
  const known = new Map<Counting, number>();
  return (counting) =>
    remembered(known, counting, () =>
      nodes.filter(counting.counts).reduce((sum, node) => sum + nodeFlops(node, bindings, counting.convention), 0),
    );
}

function remembered<K, V>(known: Map<K, V>, key: K, make: () => V): V {
  const value = known.get(key) ?? make();
  known.set(key, value);
  return value;
}
