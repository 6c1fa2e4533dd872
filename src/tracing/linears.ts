import type { Graph, Value } from "../graph/index.js";
import type { Model } from "./model.js";
import { traceCut } from "./tracer.js";

/** Names of the weights of linear layers, by what fewer bits do to a network. Such as are used otherwise too are none. */
export interface Linears {
  /** Those that are most of the work, step by step. */
  readonly main: readonly string[];
  /** Those that make shifts, scales and gates of timestep and condition: they run once for all steps. */
  readonly modulation: readonly string[];
  /** The others: embeddings, first and last layers. */
  readonly other: readonly string[];
}

/** Of a network that is no model: all of them are its work. */
export const networkLinears = (graph: Graph): Linears => ({ main: linearWeights(graph), modulation: [], other: [] });

/**
 * Of a model: a step multiplies with the main ones, and a forecast of the whole stack does without them, and without
 * their modulation.
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
  const main = new Set((step as string[]).filter((name) => !without.has(name)));
  const modulation = new Set(hoistedLinears(model).filter((name) => !without.has(name) && !main.has(name)));
  return {
    main: [...main],
    modulation: [...modulation],
    other: all.filter((name) => !main.has(name) && !modulation.has(name)),
  };
}

/** Weights of the linear layers whose output, in another shape perhaps, is a table of pairs. */
function hoistedLinears(model: Model): string[] {
  return traceCut(model, { hoisted: "pair" }).graph.outputs.flatMap(({ value }) => {
    let made = value.producer;
    while (made?.op === "Reshape") made = made.inputs[0]?.producer ?? null;
    return weightOf(made) ?? [];
  });
}

/** Weights that linear layers multiply with, and nothing else takes. */
function linearWeights(graph: Graph): string[] {
  const { nodes } = graph.reachable();
  const names = nodes.flatMap((node) => weightOf(node) ?? []);
  const otherwise = new Set(
    nodes.flatMap((node) => node.inputs.flatMap((input, i) => (node.op === "Gemm" && i === 1 ? [] : nameOf(input)))),
  );
  return [...new Set(names)].filter((name) => !otherwise.has(name));
}

const weightOf = (node: Value["producer"]): string | undefined =>
  node?.op === "Gemm" ? nameOf(node.inputs[1] ?? null)[0] : undefined;

const nameOf = (value: Value | null): string[] => (value?.origin?.kind === "weight" ? [value.origin.tensor] : []);
