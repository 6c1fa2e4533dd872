import type { Linears } from "../tracing/index.js";
import {
  type Checkpoint,
  type CheckpointTensor,
  isPacked,
  matrixInBits,
  storedBytes,
  unpacked,
} from "../weights/index.js";

/**
 * In what a model computes. "int8": the linear layers of its blocks and their modulation multiply 8-bit numbers. "int4": the
 * same, with the weights of the former in 4 bits. Everything else, and the autoencoder, is float32. Weights that their file has in few bits
 * stay in those.
 */
export const modelDtypes = ["float32", "int8", "int4"] as const;
/** One of `modelDtypes`. */
export type ModelDtype = (typeof modelDtypes)[number];

/** Bits of the weights of linear layers, by what the layers are. */
const BITS: Readonly<Record<ModelDtype, Readonly<Partial<Record<keyof Linears, 4 | 8>>>>> = {
  float32: {},
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
  const isThere = (name: string): boolean => {
    const tensor = checkpoint.get(name);
    return tensor !== undefined && isPacked(tensor);
  };
  const kinds = ["main", "modulation", "other"] as const;
  const fewer = kinds.flatMap((kind) => {
    const bits = BITS[dtype][kind];
    const names = bits ? linears()[kind].filter((name) => !isThere(name)) : [];
    return bits ? names.map((name) => matrixInBits(checkpoint, name, bits)) : [];
  });
  const multiplied = new Set(kinds.flatMap((kind) => linears()[kind]));
  return checkpoint.withDerived([
    ...fewer,
    ...packed.flatMap((tensor) => (multiplied.has(tensor.name) ? [] : [unpacked(checkpoint, tensor)])),
  ]);
}

/** The type with the most bits in which the weights of a network take no more bytes than those; "int4" if none does. */
export const fittingDtype = (checkpoint: Checkpoint, linears: () => Linears, maxBytes: number): ModelDtype =>
  modelDtypes.find((dtype) => computedBytes(weightsIn(dtype, checkpoint, linears)) <= maxBytes) ?? "int4";

/** Bytes of a checkpoint's weights as they are multiplied: those in few bits in these, all others in float32. */
export const computedBytes = (checkpoint: Checkpoint): number =>
  checkpoint.tensors().reduce((sum, tensor) => sum + bytesOf(tensor), 0);

const bytesOf = (tensor: CheckpointTensor): number =>
  isPacked(tensor)
    ? storedBytes(tensor)
    : tensor.shape.reduce((elements, size) => elements * size, Float32Array.BYTES_PER_ELEMENT);
