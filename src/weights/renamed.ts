import type { Checkpoint } from "./checkpoint.js";
import type { DerivedTensor } from "./derived.js";
import { DTYPE_BITS, isBlockType, toFloat32 } from "./dtypes.js";
import type { TensorInfo } from "./safetensors.js";
import type { ScaledCheckpoint } from "./scaled-float8.js";

/** Weights by the names of a model: those that are stored where they lie, and those that are computed from stored ones. */
export interface RenamedWeights {
  readonly checkpoint: Checkpoint;
  readonly derived: readonly DerivedTensor[];
}

/** Rows [start, end) of a matrix, or elements of a vector. */
export type Rows = readonly [start: number, end: number];

/** Collects the weights of a checkpoint under other names: whole, in ranges of rows, with halves swapped, scales applied. */
export class Renaming {
  readonly #checkpoint: Checkpoint;
  readonly #scales: ReadonlyMap<string, TensorInfo>;
  readonly #stored: TensorInfo[] = [];
  readonly #derived: DerivedTensor[] = [];

  constructor({ checkpoint, scales }: ScaledCheckpoint) {
    this.#checkpoint = checkpoint;
    this.#scales = scales;
  }

  /**
   * The tensor `original`, which must be there, as `name`.
   * @param rows of its first axis. Default: all
   */
  take(name: string, original: string, rows?: Rows): void {
    const whole = this.#checkpoint.get(original) as TensorInfo;
    const tensor = { ...(rows ? rowsOf(whole, rows) : whole), name };
    const scale = this.#scales.get(original);
    if (scale) this.#derived.push(scaledTensor(this.#checkpoint, tensor, scale));
    else this.#stored.push(tensor);
  }

  /** The tensor `original` with the halves of its first axis swapped: in float32 if it is quantised, or else as stored. */
  takeSwapped(name: string, original: string): void {
    const tensor = this.#checkpoint.get(original) as TensorInfo;
    const scale = this.#scales.get(original);
    const source = scale
      ? scaledTensor(this.#checkpoint, tensor, scale)
      : isBlockType(tensor.dtype)
        ? dequantizedTensor(this.#checkpoint, tensor)
        : storedTensor(this.#checkpoint, tensor);
    this.#derived.push({
      ...source,
      name,
      recipe: JSON.stringify(["halves swapped", source.recipe]),
      async make() {
        const bytes = await source.make();
        const half = bytes.length / 2;
        const swapped = new Uint8Array(bytes.length);
        swapped.set(bytes.subarray(half));
        swapped.set(bytes.subarray(0, half), half);
        return swapped;
      },
    });
  }

  /** All that was taken. @throws FemoError E_WEIGHT if a name occurs twice */
  weights(): RenamedWeights {
    return { checkpoint: this.#checkpoint.withTensors(this.#stored), derived: this.#derived };
  }
}

/** Rows of a tensor, whose bytes are contiguous in every type: blocks run along rows. */
function rowsOf(tensor: TensorInfo, [start, end]: Rows): TensorInfo {
  const [, ...rest] = tensor.shape;
  const rowBytes = rest.reduce((product, size) => product * size, DTYPE_BITS[tensor.dtype] / 8);
  const byteLength = (end - start) * rowBytes;
  return { ...tensor, shape: [end - start, ...rest], offset: tensor.offset + start * rowBytes, byteLength };
}

const placeOf = ({ dtype, file, offset, byteLength }: TensorInfo) => [dtype, file, offset, byteLength];

/** A stored tensor as one that is computed, of the same bytes. */
function storedTensor(checkpoint: Checkpoint, tensor: TensorInfo): DerivedTensor {
  const { name, dtype, shape, file } = tensor;
  const source = checkpoint.withTensors([tensor]);
  return {
    name,
    dtype,
    shape,
    recipe: JSON.stringify(placeOf(tensor)),
    files: [file],
    make: () => source.readBytes(name),
  };
}

/** A tensor of any floating-point type, blocks too, in float32. */
export function dequantizedTensor(checkpoint: Checkpoint, tensor: TensorInfo): DerivedTensor {
  const stored = storedTensor(checkpoint, tensor);
  return {
    ...stored,
    dtype: "float32",
    recipe: JSON.stringify(["float32", stored.recipe]),
    async make() {
      const values = toFloat32(await stored.make(), tensor.dtype, `${checkpoint.name}: ${tensor.name}`);
      return new Uint8Array(values.buffer);
    },
  };
}

/**
 * A weight in 8-bit floating point times its scale, in float32: neither float16 nor bfloat16 has the bits of the product.
 * @param scale one float32
 */
function scaledTensor(checkpoint: Checkpoint, tensor: TensorInfo, scale: TensorInfo): DerivedTensor {
  const plain = dequantizedTensor(checkpoint, tensor);
  const factor = dequantizedTensor(checkpoint, scale);
  return {
    ...plain,
    recipe: JSON.stringify(["scaled", plain.recipe, factor.recipe]),
    files: [...new Set([tensor.file, scale.file])],
    async make() {
      const bytes = await plain.make();
      const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
      const [by = 1] = new Float32Array((await factor.make()).buffer);
      for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * by;
      return bytes;
    },
  };
}
