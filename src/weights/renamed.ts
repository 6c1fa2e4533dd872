import type { Checkpoint } from "./checkpoint.js";
import type { DerivedTensor } from "./derived.js";
import { isBlockType, toFloat32 } from "./dtypes.js";
import { BLOCK_TYPES, packedBlocks } from "./gguf-blocks.js";
import { packedMatrix } from "./packed.js";
import type { ScaledCheckpoint } from "./scaled-float8.js";
import { type CheckpointTensor, filesOf, isDerived, recipeOf, rowsOf } from "./tensors.js";

/** Rows [start, end) of a matrix, or elements of a vector. */
export type Rows = readonly [start: number, end: number];

/**
 * Collects the weights of a checkpoint under other names, as they compute: whole, in ranges of rows, with halves swapped,
 * scales applied, matrices of GGUF's blocks in few bits.
 */
export class Renaming {
  readonly #checkpoint: Checkpoint;
  readonly #scales: ScaledCheckpoint["scales"];
  readonly #tensors: CheckpointTensor[] = [];

  constructor({ checkpoint, scales }: ScaledCheckpoint) {
    this.#checkpoint = checkpoint;
    this.#scales = scales;
  }

  /**
   * The tensor `original`, which must be there, as `name`.
   * @param rows of its first axis. Default: all
   */
  take(name: string, original: string, rows?: Rows): void {
    const whole = this.#checkpoint.get(original) as CheckpointTensor;
    const tensor = { ...(rows ? rowsOf(whole, ...rows) : whole), name };
    const scale = this.#scales.get(original);
    this.#tensors.push(scale ? scaled(this.#checkpoint, tensor, scale) : computable(this.#checkpoint, tensor));
  }

  /** The tensor `original` with the halves of its first axis swapped: in float32 if it is quantised, or else as stored. */
  takeSwapped(name: string, original: string): void {
    const source = this.#asComputed(original);
    this.#tensors.push({
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

  /** The matrix `original` transposed: in float32 if it is quantised, or else as stored. */
  takeTransposed(name: string, original: string): void {
    const tensor = this.#checkpoint.get(original) as CheckpointTensor;
    const source = this.#asComputed(original);
    const [rows, columns] = tensor.shape as [number, number];
    this.#tensors.push({
      ...source,
      name,
      shape: [columns, rows],
      recipe: JSON.stringify(["transposed", source.recipe]),
      make: async () => transposed(await source.make(), rows, columns),
    });
  }

  /** A tensor as one whose bytes can be moved about. */
  #asComputed(original: string): DerivedTensor {
    const tensor = this.#checkpoint.get(original) as CheckpointTensor;
    const scale = this.#scales.get(original);
    if (scale) return scaled(this.#checkpoint, tensor, scale);
    return isBlockType(tensor.dtype) ? inFloat32(this.#checkpoint, tensor) : computed(this.#checkpoint, tensor);
  }

  /** All that was taken. @throws FemoError E_WEIGHT if a name occurs twice */
  checkpoint(): Checkpoint {
    return this.#checkpoint.withTensors(this.#tensors);
  }
}

/** A matrix of [rows, columns] as one of [columns, rows], whatever the size of its elements. */
function transposed(bytes: Uint8Array, rows: number, columns: number): Uint8Array {
  const size = bytes.length / (rows * columns);
  const moved = new Uint8Array(bytes.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const from = (row * columns + column) * size;
      moved.set(bytes.subarray(from, from + size), (column * rows + row) * size);
    }
  }
  return moved;
}

/** A tensor in a type that computes: of GGUF's blocks a matrix in few bits, or float32. Others stay as they are. */
function computable(checkpoint: Checkpoint, tensor: CheckpointTensor): CheckpointTensor {
  const { name, dtype, shape } = tensor;
  const [rows, columns, ...more] = shape;
  if (!isBlockType(dtype)) return tensor;
  if (rows === undefined || columns === undefined || more.length > 0) return inFloat32(checkpoint, tensor);
  const { run, bits, minimums } = BLOCK_TYPES[dtype];
  const stored = computed(checkpoint, tensor);
  return packedMatrix({
    name,
    shape: [rows, columns],
    bits: bits === 4 ? 4 : 8,
    block: run,
    has: minimums ? ["minimums"] : [],
    recipe: JSON.stringify(["blocks", 1, stored.recipe]),
    files: stored.files,
    make: async () => packedBlocks(dtype, await stored.make(), rows, columns),
  });
}

/** A tensor as one that is computed, of the same bytes. */
function computed(checkpoint: Checkpoint, tensor: CheckpointTensor): DerivedTensor {
  if (isDerived(tensor)) return tensor;
  const { name, dtype, shape } = tensor;
  const source = checkpoint.withTensors([tensor]);
  return { name, dtype, shape, recipe: recipeOf(tensor), files: filesOf(tensor), make: () => source.readBytes(name) };
}

/** A tensor of any floating-point type, blocks too, in float32. */
function inFloat32(checkpoint: Checkpoint, tensor: CheckpointTensor): DerivedTensor {
  const stored = computed(checkpoint, tensor);
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
function scaled(checkpoint: Checkpoint, tensor: CheckpointTensor, scale: CheckpointTensor): DerivedTensor {
  const plain = inFloat32(checkpoint, tensor);
  const factor = inFloat32(checkpoint, scale);
  return {
    ...plain,
    recipe: JSON.stringify(["scaled", plain.recipe, factor.recipe]),
    files: [...new Set([...plain.files, ...factor.files])],
    async make() {
      const bytes = await plain.make();
      const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
      const [by = 1] = new Float32Array((await factor.make()).buffer);
      for (let i = 0; i < values.length; i++) values[i] = (values[i] as number) * by;
      return bytes;
    },
  };
}
