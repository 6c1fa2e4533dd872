import { FemoError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import type { DerivedTensor } from "./derived.js";
import { FLOAT16_MAX, float16Bits } from "./float16.js";
import { filesOf, recipeOf } from "./tensors.js";
import { quote } from "./text.js";

/**
 * A tensor of a checkpoint in float16, computed when it is read.
 * @throws FemoError E_WEIGHT if it is not there; when it is computed, if it has a number that is beyond float16, or none
 */
export function tensorInHalf(checkpoint: Checkpoint, name: string): DerivedTensor {
  const tensor = checkpoint.get(name);
  if (!tensor) throw new FemoError("E_WEIGHT", `${checkpoint.name}: expected ${quote(name)}, found nothing`);
  return {
    name,
    dtype: "float16",
    shape: tensor.shape,
    recipe: JSON.stringify(["float16", recipeOf(tensor)]),
    files: filesOf(tensor),
    make: async () => {
      const values = await checkpoint.readTensor(name);
      const beyond = values.find((x) => !(Math.abs(x) <= FLOAT16_MAX));
      if (beyond !== undefined) {
        throw new FemoError(
          "E_WEIGHT",
          `${checkpoint.name}: ${name}: expected numbers up to ${FLOAT16_MAX} for dtype "float16", found ${beyond}: take "float32"`,
        );
      }
      return new Uint8Array(Uint16Array.from(values, float16Bits).buffer);
    },
  };
}
