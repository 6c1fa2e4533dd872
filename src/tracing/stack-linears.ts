import type { Graph } from "../graph/index.js";
import type { Model } from "./model.js";
import { traceCut } from "./tracer.js";

/**
 * Weights of the linear layers that a step multiplies with and a forecast of the whole stack does without: most of the
 * work, and neither first nor last layers, nor embeddings, nor modulation.
 * @throws FemoError E_GRAPH if the model has no level "stack"
 */
export function stackLinears(model: Model): string[] {
  const without = traceCut(model, { forecast: { level: "stack" }, state: { history: 1, averages: 0 } });
  const left = new Set(linears(without.graph));
  return linears(traceCut(model, {}).graph).filter((name) => !left.has(name));
}

const linears = (graph: Graph): string[] =>
  graph.reachable().nodes.flatMap(({ op, inputs: [, weight] }) => {
    return op === "Gemm" && weight?.origin?.kind === "weight" ? [weight.origin.tensor] : [];
  });
