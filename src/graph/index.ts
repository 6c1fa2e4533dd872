export { type FeatureKernel, kernelNames, traceFeatureKernel } from "./feature-kernel.js";
export { countFlops, type FlopsConvention, nodeFlops, productsAnd } from "./flops.js";
export { Graph, type Node, Value } from "./graph.js";
export { type QuantizedLocation, toOnnx, type WeightLocation, type WeightStorage } from "./onnx.js";
export { stackLinears } from "./quantized.js";
export { type Bindings, bindShape, type Shape } from "./shape.js";
export {
  BATCH,
  type FeatureSite,
  type Granularity,
  granularities,
  type ModelDefinition,
  names,
  type StateShape,
  type Trace,
  type TracedGraph,
  traceConditioning,
  traceForecast,
  traceFull,
  traceStep,
  traceWhole,
} from "./trace.js";
