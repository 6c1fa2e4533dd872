import { sizeOf } from "../graph/shape.js";
import type { HostTensor } from "./engine.js";

/** Rows of a tensor along its first axis. */
export function gatherRows({ dtype, dims, data }: HostTensor, rows: readonly number[]): HostTensor {
  const row = dims.slice(1);
  const size = sizeOf(row);
  const out = dtype === "int64" ? new BigInt64Array(rows.length * size) : new Float32Array(rows.length * size);
  for (const [i, at] of rows.entries()) out.set(data.subarray(at * size, (at + 1) * size) as never, i * size);
  return { dtype, dims: [rows.length, ...row], data: out };
}
