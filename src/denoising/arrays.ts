import type { HostTensor } from "../runtime/engine.js";

/** True if every element is a finite number. */
export function allFinite(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}

/** The rows of a tensor, its first axis, without a copy. */
export function rowsOf({ data }: HostTensor, rows: number): Float32Array[] {
  const size = data.length / rows;
  return Array.from({ length: rows }, (_, i) => (data as Float32Array).subarray(i * size, (i + 1) * size));
}

export function concat(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** |now - then| / |then| */
export function relativeChange(now: Float32Array, then: Float32Array, measure: "l1" | "l2"): number {
  const power = measure === "l1" ? Math.abs : (x: number) => x * x;
  let [change, size] = [0, 0];
  for (let i = 0; i < now.length; i++) {
    change += power((now[i] as number) - (then[i] as number));
    size += power(then[i] as number);
  }
  const ratio = change / size;
  return measure === "l1" ? ratio : Math.sqrt(ratio);
}
