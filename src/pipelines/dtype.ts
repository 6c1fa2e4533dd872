import { FemoError } from "../errors.js";
import type { Checkpoint } from "../weights/index.js";

/**
 * In what a model computes. "int8": the linear layers of the transformer's stack multiply 8-bit numbers, everything else
 * and the autoencoder float32.
 */
export const modelDtypes = ["float32", "int8"] as const;
export type ModelDtype = (typeof modelDtypes)[number];

/** Makes 8-bit copies of a checkpoint's matrices, named as `quantizedCheckpoint` says. */
export type Quantize = (checkpoint: Checkpoint, names: readonly string[]) => Promise<Checkpoint>;

/** @throws FemoError E_OPTION if there is no such type */
export function checkDtype(dtype: unknown): ModelDtype {
  const found = modelDtypes.find((known) => known === dtype);
  if (found) return found;
  throw new FemoError("E_OPTION", `dtype: expected ${modelDtypes.join(" or ")}, found ${JSON.stringify(dtype)}`);
}
