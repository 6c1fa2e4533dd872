import { FemoError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import type { DerivedTensor } from "./derived.js";
import { type PackedMatrix, packedMatrix } from "./packed.js";
import { INT4, INT8, type QuantizedMatrix, quantizeInt4, quantizeInt8 } from "./quantize.js";
import { filesOf, recipeOf } from "./tensors.js";
import { quote } from "./text.js";

/** Versions of what `quantizeInt8` and `quantizeInt4` make: another number, other bytes. */
const FORMATS = {
  8: { ...INT8, has: [], version: 1, quantize: quantizeInt8 },
  4: { ...INT4, has: ["zeros"], version: 1, quantize: quantizeInt4 },
} as const;

/**
 * A matrix of a checkpoint in fewer bits, as `quantizeInt8` or `quantizeInt4` make it: computed when it is read.
 * @throws FemoError E_WEIGHT if it is not there, or no matrix; when it is computed, if it is of another type than float16,
 *   bfloat16, float32 and float64, or not finite
 */
export function matrixInBits(checkpoint: Checkpoint, name: string, bits: 4 | 8): PackedMatrix {
  const matrix = checkpoint.get(name);
  const [rows, columns, ...others] = matrix?.shape ?? [];
  if (!matrix || rows === undefined || columns === undefined || others.length > 0) {
    const found = matrix ? `[${matrix.shape.join(", ")}]` : "nothing";
    throw new FemoError("E_WEIGHT", `${checkpoint.name}: expected a matrix named ${quote(name)}, found ${found}`);
  }
  const { block, has, version, quantize } = FORMATS[bits];
  return packedMatrix({
    name,
    shape: [rows, columns],
    ...{ bits, block, has },
    recipe: JSON.stringify([`int${bits}`, version, recipeOf(matrix)]),
    files: filesOf(matrix),
    make: async (): Promise<QuantizedMatrix> =>
      quantize(await checkpoint.readTensor(name), columns, `${checkpoint.name}: ${name}`),
  });
}

/** A tensor of a checkpoint in float32: of a matrix in few bits the values for which it stands. */
export function unpacked(checkpoint: Checkpoint, tensor: PackedMatrix): DerivedTensor {
  const { name, shape } = tensor;
  return {
    name,
    dtype: "float32",
    shape,
    recipe: JSON.stringify(["unpacked", recipeOf(tensor)]),
    files: filesOf(tensor),
    make: () => checkpoint.readBytes(name),
  };
}
