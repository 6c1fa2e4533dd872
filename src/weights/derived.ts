import type { TensorDtype } from "./dtypes.js";

/**
 * A tensor that is computed from stored ones, such as a matrix in 4 bits, or one with a LoRA merged in. It has no bytes in
 * any file until it is kept (`Platform.kept`). A plain object: `{ ...tensor, name }` is the same tensor by another name.
 */
export interface DerivedTensor {
  readonly name: string;
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  /** What it is made of and how: tensors of the same files with equal recipes have the same bytes. */
  readonly recipe: string;
  /** The files it is made from, as `TensorInfo.file` names them. */
  readonly files: readonly string[];
  /**
   * Its bytes, little-endian and row-major. Each call computes them again.
   * @throws FemoError E_FILE, E_WEIGHT if what it is made from cannot be read or has no such values
   */
  make(): Promise<Uint8Array>;
}
