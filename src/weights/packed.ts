import type { DerivedTensor } from "./derived.js";
import { type BlockFormat, blocksOf, type QuantizedMatrix } from "./quantize.js";
import type { TensorInfo } from "./safetensors.js";

/** What a matrix in few bits consists of; see `QuantizedMatrix`. */
export const packedParts = ["values", "scales", "zeros", "minimums"] as const;
export type PackedPart = (typeof packedParts)[number];

/**
 * A matrix in few bits: to those who read it float32 [rows, columns], to a linear layer the product that takes it as it
 * is. Its parts are tensors of their own, whose first axis is that of the rows.
 */
export interface PackedMatrix extends BlockFormat {
  readonly name: string;
  /** Of what is read of it. */
  readonly dtype: "float32";
  /** [rows, columns] */
  readonly shape: readonly number[];
  /** uint8 values, float32 scales; if it has them, uint8 zeros and float32 minimums. */
  readonly parts: Readonly<Partial<Record<PackedPart, TensorInfo | DerivedTensor>>>;
}

/** What a matrix in few bits is made from. */
export interface PackedSource extends BlockFormat {
  readonly name: string;
  readonly shape: readonly [rows: number, columns: number];
  /** Which parts it has beside values and scales. */
  readonly has?: readonly PackedPart[];
  /** As of a `DerivedTensor`. */
  readonly recipe: string;
  readonly files: readonly string[];
  make(): Promise<QuantizedMatrix>;
}

/** A matrix in few bits whose parts are derived tensors. Those who make one part after the other make the matrix once. */
export function packedMatrix({ name, shape, bits, block, has = [], recipe, files, make }: PackedSource): PackedMatrix {
  const [rows, columns] = shape;
  const blocks = blocksOf(columns, block);
  const shapes: Record<PackedPart, readonly number[]> = {
    values: [rows, blocks, (block * bits) / 8],
    scales: [rows, blocks],
    zeros: [rows, Math.ceil((blocks * bits) / 8)],
    minimums: [rows, blocks],
  };
  // The small parts wait until they are asked for, each once.
  const waiting = new Map<PackedPart, Uint8Array>();
  const partOf = (part: PackedPart): DerivedTensor => ({
    name: partName(name, part),
    dtype: part === "values" || part === "zeros" ? "uint8" : "float32",
    shape: shapes[part],
    recipe: JSON.stringify([part, bits, block, recipe]),
    files,
    async make() {
      const made = waiting.get(part);
      waiting.delete(part);
      if (made) return made;
      const matrix = await make();
      for (const other of packedParts) {
        const data = matrix[other];
        if (data && other !== "values" && other !== part) waiting.set(other, bytesOf(data));
      }
      return bytesOf(matrix[part] as Uint8Array | Float32Array);
    },
  });
  const parts = packedParts.filter((part) => part === "values" || part === "scales" || has.includes(part));
  return {
    name,
    dtype: "float32",
    shape,
    bits,
    block,
    parts: Object.fromEntries(parts.map((part) => [part, partOf(part)])),
  };
}

/** Under which name a part is kept: the values under that of the matrix. */
export const partName = (name: string, part: PackedPart): string => (part === "values" ? name : `${name}.${part}`);

const bytesOf = ({ buffer, byteOffset, byteLength }: Uint8Array | Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);
