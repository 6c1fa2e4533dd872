import type { Graph, Node, Value } from "../graph/index.js";
import type { Model } from "./model.js";
import { partKinds, traceCut } from "./tracer.js";

/** Names of the weights of linear layers, by what fewer bits do to a network. Such as are used otherwise too are none. */
export interface Linears {
  /** Those of its blocks: most of the work, step by step, and what blocks make of the prompt, once for all steps. */
  readonly main: readonly string[];
  /** Those that make shifts, scales and gates of timestep and condition: they run once for all steps. */
  readonly modulation: readonly string[];
  /** The others: embeddings, first and last layers. */
  readonly other: readonly string[];
}

/** Of a network that is no model: all of them are its work. */
export const networkLinears = (graph: Graph): Linears => ({ main: linearWeights(graph), modulation: [], other: [] });

/**
 * Of a model: a step, or a table of what varies with the prompt alone, is made with the main ones, and a forecast of the
 * whole stack does without them, and without their modulation.
 * @throws FemoError E_GRAPH if the model has no level "stack"
 */
export function modelLinears(model: Model): Linears {
  const forecast = { forecast: { level: "stack" }, state: { history: 1, averages: 0 } };
  const [step, stepWithout] = [traceCut(model, {}), traceCut(model, forecast)].map(({ graph }) => linearWeights(graph));
  const all = linearWeights(traceCut(model, { hoisted: "inline" }).graph);
  const without = new Set([
    ...(stepWithout as string[]),
    ...linearWeights(traceCut(model, { ...forecast, hoisted: "inline" }).graph),
  ]);
  // What stands before the first block, as FLUX's embedding of the text, is of no block.
  const ofBlocks = hoistedLinears(model, "condition").filter(({ parts }) => parts.some(({ kind }) => !WHOLE.has(kind)));
  const main = new Set([...(step as string[]), ...namesOf(ofBlocks)].filter((name) => !without.has(name)));
  const pairs = namesOf(hoistedLinears(model, "pair"));
  const modulation = new Set(pairs.filter((name) => !without.has(name) && !main.has(name)));
  return {
    main: [...main],
    modulation: [...modulation],
    other: all.filter((name) => !main.has(name) && !modulation.has(name)),
  };
}

/** Parts of a graph in which any part of the model lies. */
const WHOLE: ReadonlySet<string> = new Set(["output", "stack", partKinds.hoisted]);

/** The linear layers whose output, in another shape perhaps, is a table of pairs, or of conditions. */
function hoistedLinears(model: Model, hoisted: "pair" | "condition"): Node[] {
  return traceCut(model, { hoisted }).graph.outputs.flatMap(({ value }) => {
    let made = value.producer;
    while (made?.op === "Reshape") made = made.inputs[0]?.producer ?? null;
    return made && weightOf(made) !== undefined ? [made] : [];
  });
}

const namesOf = (nodes: readonly Node[]): string[] => nodes.flatMap((node) => weightOf(node) ?? []);

/** Weights that linear layers multiply with, and nothing else takes. */
function linearWeights(graph: Graph): string[] {
  const { nodes } = graph.reachable();
  const names = namesOf(nodes);
  const otherwise = new Set(
    nodes.flatMap((node) => node.inputs.flatMap((input, i) => (node.op === "Gemm" && i === 1 ? [] : nameOf(input)))),
  );
  return [...new Set(names)].filter((name) => !otherwise.has(name));
}

const weightOf = (node: Node): string | undefined =>
  node.op === "Gemm" ? nameOf(node.inputs[1] ?? null)[0] : undefined;

const nameOf = (value: Value | null): string[] => (value?.origin?.kind === "weight" ? [value.origin.tensor] : []);
