export { countFlops, type FlopsConvention, nodeFlops, productsAnd } from "./flops.js";
export { Graph } from "./graph.js";
export type { Precision } from "./half.js";
export {
  type OnnxOptions,
  type QuantizedLocation,
  type Target,
  toOnnx,
  type WeightLocation,
  type WeightStorage,
} from "./onnx.js";
export {
  addDims,
  type Bindings,
  bindDim,
  bindShape,
  type Dim,
  formatShape,
  productDim,
  type Shape,
  sizeOf,
} from "./shape.js";
export {
  type AttentionOptions,
  type Builder,
  type ConvOptions,
  type DType,
  type Node,
  type Padding,
  type Part,
  type PoolOptions,
  Value,
} from "./value.js";
