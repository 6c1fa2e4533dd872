export {
  type Cut,
  canonical,
  computesAll,
  type Place,
  partsOf,
  type Region,
  type Span,
  type StateDtype,
  type StateShape,
  spanName,
  stateDtypes,
} from "./cut.js";
export { type FeatureKernel, kernelNames, traceFeatureKernel } from "./feature-kernel.js";
export { type Linears, modelLinears, networkLinears } from "./linears.js";
export { type Input, type Model, type Rate, sampleOf } from "./model.js";
export { type Kept, type Sparse, sparseAttention, sparseMlp } from "./sparse.js";
export {
  BATCH,
  CONDITIONS,
  computeMlp,
  type MlpLayers,
  once,
  PAIRS,
  type Site,
  type Streams,
  type Tokenwise,
  type Trace,
} from "./trace.js";
export { type ChosenSite, type FeatureSite, graphNames, partKinds, type TracedGraph, traceCut } from "./tracer.js";
