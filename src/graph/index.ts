export { countFlops, type FlopsConvention, nodeFlops, productsAnd } from "./flops.js";
export { Graph, type Node, Value } from "./graph.js";
export { toOnnx, type WeightLocation } from "./onnx.js";
export type { Bindings, Shape } from "./shape.js";
export {
  type FeatureSite,
  type Granularity,
  granularities,
  type ModelDefinition,
  type Trace,
  type TracedGraph,
  traceConditioning,
  traceForecast,
  traceFull,
  traceStep,
  traceWhole,
} from "./trace.js";
