import { DTYPE_BITS, SAFETENSORS_DTYPES, type TensorDtype } from "./dtypes.js";

/** A tensor of a safetensors file to be written. */
export interface WrittenTensor {
  readonly name: string;
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
}

const STORED = new Map([...SAFETENSORS_DTYPES].map(([stored, dtype]) => [dtype, stored]));

/**
 * What a safetensors file begins with; after it come the elements of the tensors, in their order, little-endian and
 * without gaps. Filled up with spaces so that these begin at a multiple of eight.
 * @param tensors with names that differ and elements of whole bytes
 * @param metadata free text, which comes first
 */
export function safetensorsHeader(
  tensors: Iterable<WrittenTensor>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  let end = 0;
  const entries = Array.from(tensors, ({ name, dtype, shape }) => {
    const start = end;
    end += shape.reduce((product, dim) => product * dim, DTYPE_BITS[dtype] / 8);
    return [name, { dtype: STORED.get(dtype), shape, data_offsets: [start, end] }];
  });
  const json = new TextEncoder().encode(
    JSON.stringify({
      ...(metadata && { __metadata__: metadata }),
      ...Object.fromEntries(entries),
    }),
  );
  const padded = 8 * Math.ceil(json.length / 8);
  const header = new Uint8Array(8 + padded).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(padded), true);
  header.set(json, 8);
  return header;
}
