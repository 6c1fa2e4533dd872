import { addDims, Graph } from "../graph/index.js";
import type { StateDtype, StateShape } from "./cut.js";
import { BATCH } from "./trace.js";
import { stateRows } from "./tracer.js";

/** What is done with a feature after a full step; at least one of both. */
export interface FeatureKernel extends StateShape {
  /** Of features and averages. Default: float32. */
  readonly stateDtype?: StateDtype;
  /** Give the inner products of [S; F]. */
  readonly measure: boolean;
  /** Move the averages: M <- U [S; F]. */
  readonly update: boolean;
}

/** Names of a kernel's inputs and outputs. E: elements of one sample's feature, k: history + averages. */
export const kernelNames = {
  /** [batch, 1, E]: F. */
  feature: "feature",
  /** [batch, 1, E]: the i-th newest feature before F. */
  history: (i: number) => `history:${i}`,
  /** [batch, averages, E] */
  averages: "averages",
  /** [batch, averages, k + 1]: U. */
  update: "update",
  /** [batch, averages, E] */
  nextAverages: "next-averages",
  /** [batch, k + 1, k + 1]: inner products of [S; F]. */
  gram: "gram",
} as const;

/**
 * The arithmetic of a full step on one feature of any model and size. It is a graph of its own, run for one feature
 * after the other: inside the model's graph ONNX Runtime would run it for all features at the end, and hold every
 * one's intermediate results until then.
 */
export function traceFeatureKernel({ measure, update, stateDtype, ...state }: FeatureKernel): Graph {
  const graph = new Graph();
  const feature = graph.input(kernelNames.feature, [BATCH, 1, ELEMENTS], stateDtype).cast("float32");
  const rows = stateRows(graph, { ...state, stateDtype }, ELEMENTS, kernelNames.history, kernelNames.averages);
  const stacked = rows.concat([feature], 1); // [batch, k + 1, E]
  if (measure) graph.output(kernelNames.gram, stacked.gram());
  if (update) {
    const size = addDims(state.history + state.averages, 1);
    const coefficients = graph.input(kernelNames.update, [BATCH, state.averages, size]);
    graph.output(kernelNames.nextAverages, coefficients.matMul(stacked).cast(stateDtype ?? "float32"));
  }
  return graph;
}

const ELEMENTS = "elements";
