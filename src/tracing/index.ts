export { type Cut, canonical, computesAll, type Place, type Region, type StateShape } from "./cut.js";
export { type FeatureKernel, kernelNames, traceFeatureKernel } from "./feature-kernel.js";
export { type Input, type Model, type Rate, sampleOf } from "./model.js";
export { stackLinears } from "./stack-linears.js";
export { BATCH, CONDITIONS, once, PAIRS, type Site, type Streams, type Trace } from "./trace.js";
export { type FeatureSite, graphNames, type TracedGraph, traceCut } from "./tracer.js";
