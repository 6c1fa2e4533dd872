import { sizeOf } from "../graph/shape.js";
import type { HostDtype, HostTensor } from "./engine.js";

/** What holds the elements of a type. */
export const ARRAYS = { float32: Float32Array, float16: Uint16Array, int64: BigInt64Array } as const;

/** Bytes of an element. */
export const bytesOf = (dtype: HostDtype): number => ARRAYS[dtype].BYTES_PER_ELEMENT;

/** Rows of a tensor along its first axis. */
export function gatherRows({ dtype, dims, data }: HostTensor, rows: readonly number[]): HostTensor {
  const row = dims.slice(1);
  const size = sizeOf(row);
  const out = new ARRAYS[dtype](rows.length * size);
  for (const [i, at] of rows.entries()) out.set(data.subarray(at * size, (at + 1) * size) as never, i * size);
  return { dtype, dims: [rows.length, ...row], data: out };
}
