import type { Node, Value } from "./value.js";

/** In what a graph's products compute. */
export type Precision = "float32" | "float16";

/**
 * Where a GPU spends its time. What they are given in float16 stays far below its greatest number, as it was normalised; sums
 * over blocks, normalisation and what is forecast are not computed in it, and so do not overflow, as those of FLUX.1 and of
 * T5 would.
 */
const PRODUCTS: ReadonlySet<string> = new Set(["Conv", "Gemm", "MultiHeadAttention"]);

/** What moves numbers, or makes each of its own, stays in what its first operand is in. */
const FOLLOWING: ReadonlySet<string> = new Set([
  "DepthToSpace",
  "Gelu",
  "QuickGelu",
  "Reshape",
  "RotaryEmbedding",
  "SpaceToDepth",
  "Split",
  "Transpose",
  "Unsqueeze",
]);

/**
 * Which nodes compute in float16 if products do.
 * @param nodes in an order in which they can be computed
 * @param isPacked whether a weight is in few bits, which has a product of its own
 */
export function nodesInHalf(nodes: readonly Node[], isPacked: (weight: string) => boolean): ReadonlySet<Node> {
  const half = new Set<Node>();
  const isHalf = (value: Value | null | undefined): boolean => !!value?.producer && half.has(value.producer);
  for (const node of nodes) {
    const { op, inputs, outputs } = node;
    if (outputs[0]?.dtype !== "float32") continue;
    const together = op === "Concat" ? inputs.every(isHalf) : FOLLOWING.has(op) && isHalf(inputs[0]);
    if (together || (PRODUCTS.has(op) && !isPacked(inputs[1]?.name ?? ""))) half.add(node);
  }
  return half;
}
