/**
 * What a model can compute on: the processor ("cpu", in a browser "wasm", which is the same there), the GPU by way of WebGPU,
 * or what a platform's ONNX Runtime has of CUDA, CoreML and DirectML. "auto" takes the best that is known to work: in a
 * browser the GPU if there is one, in Node the processor.
 */
export const devices = ["auto", "cpu", "webgpu", "cuda", "coreml", "dml", "wasm"] as const;
/** One of `devices`. */
export type Device = (typeof devices)[number];
