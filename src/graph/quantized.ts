import { FemoError } from "../errors.js";
import { BLOCK, blocksOf } from "../weights/index.js";
import type { Node, Value } from "./value.js";

/** Shapes in which the weight [rows, columns] of a linear layer is stored in 8 bits. */
export function blockShapes([rows, columns]: readonly number[]): { values: number[]; scales: number[] } {
  const blocks = [rows as number, blocksOf(columns as number)];
  return { values: [...blocks, BLOCK], scales: blocks };
}

/**
 * A linear layer (`Value.linear`) as the operator that takes its weight in 8 bits. It rounds its input to 8 bits too, with
 * a scale for every 128 neighbours of a row, and adds up whole numbers (accuracy_level 4); with other levels it
 * expands the weights at every run, which is slower than not to quantise them.
 */
export function quantizedLinear({ inputs }: Node, nameOf: (value: Value) => string, values: string, scales: string) {
  const [x, weight, bias] = inputs as [Value, Value, Value?];
  const [rows, columns] = weight.shape as [number, number];
  return {
    op: "MatMulNBits",
    domain: "com.microsoft",
    inputs: [nameOf(x), values, scales, ...(bias ? ["", "", nameOf(bias)] : [])], // no zero points, no order of groups
    attributes: { K: columns, N: rows, bits: 8, block_size: BLOCK, accuracy_level: 4 },
  };
}

/** @throws FemoError E_GRAPH if a node uses a quantised weight as anything but the weight of a linear layer */
export function checkUse({ op, inputs }: Node, isQuantized: (name: string) => boolean): void {
  const stray = inputs.find((value, i) => value && isQuantized(value.name) && !(op === "Gemm" && i === 1));
  if (stray) throw new FemoError("E_GRAPH", `${stray.name} is stored in 8 bits, which ${op} does not take`);
}
