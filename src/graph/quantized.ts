import { FemoError } from "../errors.js";
import { type BlockFormat, blocksOf } from "../weights/index.js";
import { formatShape } from "./shape.js";
import type { Attribute, Node, Value } from "./value.js";

/** Names in the model of the parts of a weight in few bits; see `QuantizedMatrix`. */
export interface QuantizedNames extends BlockFormat {
  readonly values: string;
  readonly scales: string;
  readonly zeros?: string | undefined;
  readonly minimums?: string | undefined;
}

/** A node of the model. */
export interface Call {
  readonly op: string;
  readonly domain?: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
}

/** Nodes, and the int64 vectors that they take, by name; equal names are equal vectors. */
export interface Calls {
  readonly calls: readonly Call[];
  readonly vectors: Readonly<Record<string, readonly number[]>>;
}

/**
 * Shapes in which the parts of a linear layer's weight [rows, columns] are stored.
 * @throws FemoError E_WEIGHT if it has minimums and a block that is not whole
 */
export function blockShapes(
  name: string,
  shape: readonly number[],
  { bits, block }: BlockFormat,
  hasMinimums: boolean,
) {
  const [rows, columns] = shape as [number, number];
  const blocks = blocksOf(columns, block);
  if (hasMinimums && blocks * block !== columns) {
    throw new FemoError("E_WEIGHT", `${name}: expected rows of whole blocks of ${block}, found ${formatShape(shape)}`);
  }
  return {
    values: [rows, blocks, (block * bits) / 8],
    scales: [rows, blocks],
    zeros: [rows, Math.ceil((blocks * bits) / 8)],
    minimums: [rows, blocks],
  };
}

/**
 * A linear layer (`Value.linear`) as the operator that takes its weight in few bits. It rounds its input to 8 bits too,
 * with a scale for every block of a row, and adds up whole numbers (accuracy_level 4); with other levels it expands
 * the weights at every run, which is slower than not to quantise them. A minimum that is taken from all weights of a block
 * is taken from the product instead, times the sum of the block's inputs: as a zero that is no whole number it would
 * rule out whole numbers.
 */
export function quantizedLinear(node: Node, nameOf: (value: Value) => string, weight: QuantizedNames): Calls {
  const [x, { shape }, bias] = node.inputs as [Value, Value, Value?];
  const [rows, columns] = shape as [number, number];
  const y = nameOf(node.outputs[0] as Value);
  const { bits, block, values, scales, zeros = "", minimums } = weight;
  const optional = bias ? [zeros, "", nameOf(bias)] : zeros ? [zeros] : []; // "": no order of groups
  const product = (output: string): Call => ({
    op: "MatMulNBits",
    domain: "com.microsoft",
    inputs: [nameOf(x), values, scales, ...optional],
    outputs: [output],
    attributes: { K: columns, N: rows, bits, block_size: block, accuracy_level: 4 },
  });
  if (minimums === undefined) return { calls: [product(y)], vectors: {} };

  const blocks = [0, columns / block, block]; // 0: as many rows as there are
  const [inBlocks, last] = [`blocks:${blocks}`, "axis:-1"];
  const [levels, split, sums, taken] = ["levels", "split", "sums", "taken"].map((what) => `${y}:${what}`) as Four;
  const calls: Call[] = [
    product(levels),
    { op: "Reshape", inputs: [nameOf(x), inBlocks], outputs: [split], attributes: {} },
    { op: "ReduceSum", inputs: [split, last], outputs: [sums], attributes: { keepdims: 0 } },
    { op: "Gemm", inputs: [sums, minimums], outputs: [taken], attributes: { transB: 1 } },
    { op: "Sub", inputs: [levels, taken], outputs: [y], attributes: {} },
  ];
  return { calls, vectors: { [inBlocks]: blocks, [last]: [-1] } };
}

type Four = [string, string, string, string];

/** @throws FemoError E_GRAPH if a node uses a quantised weight as anything but the weight of a linear layer */
export function checkUse({ op, inputs }: Node, bitsOf: (name: string) => number | undefined): void {
  const stray = inputs.find((value, i) => value && bitsOf(value.name) && !(op === "Gemm" && i === 1));
  if (stray) {
    throw new FemoError("E_GRAPH", `${stray.name} is stored in ${bitsOf(stray.name)} bits, which ${op} does not take`);
  }
}
