import type { DerivedTensor } from "./derived.js";
import { DTYPE_BITS } from "./dtypes.js";
import type { PackedMatrix } from "./packed.js";
import type { TensorInfo } from "./safetensors.js";

/** What a checkpoint holds: tensors in files, tensors that are computed, matrices in few bits. */
export type CheckpointTensor = TensorInfo | DerivedTensor | PackedMatrix;

export const isPacked = (tensor: CheckpointTensor): tensor is PackedMatrix => "parts" in tensor;
export const isDerived = (tensor: CheckpointTensor): tensor is DerivedTensor => "make" in tensor;

/** The tensors of which one consists: the parts of a matrix in few bits, any other itself. */
export const leavesOf = (tensor: CheckpointTensor): (TensorInfo | DerivedTensor)[] =>
  isPacked(tensor) ? Object.values(tensor.parts) : [tensor];

/** Bytes of all elements, as stored. */
export const storedBytes = (tensor: CheckpointTensor): number =>
  leavesOf(tensor).reduce((sum, { shape, dtype }) => sum + shape.reduce((a, b) => a * b, DTYPE_BITS[dtype] / 8), 0);

/** What a tensor is, as a part of the recipe (`DerivedTensor.recipe`) of one that is made from it. */
export const recipeOf = (tensor: CheckpointTensor): string =>
  JSON.stringify(
    leavesOf(tensor).map((leaf) =>
      isDerived(leaf) ? leaf.recipe : [leaf.dtype, leaf.shape, leaf.file, leaf.offset, leaf.byteLength],
    ),
  );

/** The files that a tensor is in, or made from. */
export const filesOf = (tensor: CheckpointTensor): string[] => [
  ...new Set(leavesOf(tensor).flatMap((leaf) => (isDerived(leaf) ? leaf.files : [leaf.file]))),
];

/** The rows [start, end) of the first axis of a tensor, as a tensor of the same name. */
export function rowsOf<T extends CheckpointTensor>(tensor: T, start: number, end: number): T;
export function rowsOf(tensor: CheckpointTensor, start: number, end: number): CheckpointTensor {
  if (isPacked(tensor)) {
    const parts = Object.entries(tensor.parts).map(([part, leaf]) => [part, rowsOf(leaf, start, end)]);
    return { ...tensor, shape: [end - start, ...tensor.shape.slice(1)], parts: Object.fromEntries(parts) };
  }
  const shape = [end - start, ...tensor.shape.slice(1)];
  const rowBytes = storedBytes({ ...tensor, shape: [1, ...shape.slice(1)] });
  if (!isDerived(tensor)) {
    return { ...tensor, shape, offset: tensor.offset + start * rowBytes, byteLength: (end - start) * rowBytes };
  }
  const recipe = JSON.stringify(["rows", start, end, tensor.recipe]);
  return { ...tensor, shape, recipe, make: async () => (await tensor.make()).slice(start * rowBytes, end * rowBytes) };
}
