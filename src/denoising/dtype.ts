import type { Precision } from "../graph/index.js";
import type { Linears } from "../tracing/index.js";
import {
  type Checkpoint,
  type CheckpointTensor,
  isPacked,
  matrixInBits,
  storedBytes,
  tensorInHalf,
  unpacked,
} from "../weights/index.js";

/**
 * In what a model computes. "float16": its products, of linear layers, convolutions and attention. "int8": the linear layers of
 * its blocks and their modulation multiply 8-bit numbers. "int4": the same, with the weights of the former in 4 bits.
 * Everything else, and the autoencoder, is float32. Weights that their file has in few bits stay in those.
 */
export const modelDtypes = ["float32", "float16", "int8", "int4"] as const;
/** One of `modelDtypes`. */
export type ModelDtype = (typeof modelDtypes)[number];

/** Bits of the weights of linear layers, by what the layers are. */
const BITS: Readonly<Record<ModelDtype, Readonly<Partial<Record<keyof Linears, 4 | 8 | 16>>>>> = {
  float32: {},
  float16: { main: 16, modulation: 16, other: 16 },
  int8: { main: 8, modulation: 8 },
  int4: { main: 4, modulation: 8 },
};

/** Puts a checkpoint's computed tensors into a file, made once; see `Platform.kept`. */
export type Keep = (checkpoint: Checkpoint) => Promise<Checkpoint>;

/**
 * A checkpoint's weights as a network computes with them: those of linear layers in the bits of the type, unless they are
 * in few bits already; others that are, unpacked. What changes is computed: keep it before a network is made of it.
 * @param linears asked only if something changes
 * @throws FemoError E_WEIGHT if a weight of a linear layer is not there, or no matrix
 */
export function weightsIn(dtype: ModelDtype, checkpoint: Checkpoint, linears: () => Linears): Checkpoint {
  const packed = checkpoint.tensors().filter(isPacked);
  if (dtype === "float32" && packed.length === 0) return checkpoint;
  const isThere = (name: string, bits: number): boolean => {
    const tensor = checkpoint.get(name);
    return tensor !== undefined && (isPacked(tensor) || (bits === 16 && tensor.dtype === "float16"));
  };
  const kinds = ["main", "modulation", "other"] as const;
  const fewer = kinds.flatMap((kind) => {
    const bits = BITS[dtype][kind];
    const names = bits ? linears()[kind].filter((name) => !isThere(name, bits)) : [];
    return names.map((name) =>
      bits === 16 ? tensorInHalf(checkpoint, name) : matrixInBits(checkpoint, name, bits as 4 | 8),
    );
  });
  const multiplied = new Set(kinds.flatMap((kind) => linears()[kind]));
  return checkpoint.withDerived([
    ...fewer,
    ...packed.flatMap((tensor) => (multiplied.has(tensor.name) ? [] : [unpacked(checkpoint, tensor)])),
  ]);
}

/** In what its products compute. */
export const precisionOf = (dtype: ModelDtype): Precision => (dtype === "float16" ? "float16" : "float32");

/**
 * From here on, in bytes of float32, time decides as well: a step takes seconds, beside which measuring is short. What
 * smaller networks draw does not depend on the machine, as long as they fit into its memory.
 */
const LARGE = 4e9;
/** How many times as fast 8 bits have to be where there is memory for more: what they draw is not quite the same. */
const WORTH = 1.5;

/** What a network computes in if its user leaves it open, and why if that is not float32. */
export type DefaultDtype =
  | { readonly dtype: "float32" }
  | { readonly dtype: "int8" | "int4"; readonly bytesInFloat32: number }
  | { readonly dtype: "int8"; readonly timesAsFast: number };

/**
 * The type with the most bits in which the weights of a network take no more bytes than those; "int4" if none does.
 * A large network takes 8 bits instead of float32 where they are much faster.
 * @param int8TimesAsFast measured only if it matters
 */
export async function defaultDtype(
  checkpoint: Checkpoint,
  linears: () => Linears,
  maxBytes: number,
  int8TimesAsFast: () => Promise<number>,
): Promise<DefaultDtype> {
  const bytesIn = (dtype: ModelDtype): number => computedBytes(weightsIn(dtype, checkpoint, linears));
  const bytesInFloat32 = bytesIn("float32");
  if (bytesInFloat32 > maxBytes) return { dtype: bytesIn("int8") <= maxBytes ? "int8" : "int4", bytesInFloat32 };
  if (bytesInFloat32 < LARGE || bytesIn("int8") > bytesInFloat32 / 2) return { dtype: "float32" };
  const timesAsFast = await int8TimesAsFast();
  return timesAsFast < WORTH ? { dtype: "float32" } : { dtype: "int8", timesAsFast };
}

/** Bytes of a checkpoint's weights as they are multiplied: those in few bits in these, all others in float32. */
export const computedBytes = (checkpoint: Checkpoint): number =>
  checkpoint.tensors().reduce((sum, tensor) => sum + bytesOf(tensor), 0);

const bytesOf = (tensor: CheckpointTensor): number =>
  isPacked(tensor)
    ? storedBytes(tensor)
    : tensor.shape.reduce((elements, size) => elements * size, Float32Array.BYTES_PER_ELEMENT);
