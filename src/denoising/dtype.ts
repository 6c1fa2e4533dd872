import type { Checkpoint } from "../weights/index.js";

/**
 * In what a model computes. "int8": the linear layers of the transformer's stack multiply 8-bit numbers, everything else
 * and the autoencoder float32.
 */
export const modelDtypes = ["float32", "int8"] as const;
/** One of `modelDtypes`. */
export type ModelDtype = (typeof modelDtypes)[number];

/** Makes 8-bit copies of a checkpoint's matrices, named as `quantizedCheckpoint` says. */
export type Quantize = (checkpoint: Checkpoint, names: readonly string[]) => Promise<Checkpoint>;
