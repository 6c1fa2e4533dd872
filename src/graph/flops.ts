import { FemoError } from "../errors.js";
import type { Graph, Node } from "./graph.js";
import { type Bindings, bindShape } from "./shape.js";

/** Operations per element of the first output. Products are counted apart; what moves data counts nothing. */
const PER_ELEMENT: Readonly<Record<string, number>> = {
  Add: 1,
  Sub: 1,
  Mul: 1,
  Sin: 1,
  Cos: 1,
  Sigmoid: 4, // exp, negation, addition, division
  Gelu: 8, // tanh form: 5 for the cubic and its scaling, tanh, addition, product
  LayerNormalization: 8, // mean 1, variance 3, normalise 2, scale and bias 2
  Reshape: 0,
  Transpose: 0,
  Concat: 0,
  Split: 0,
  Gather: 0,
  Unsqueeze: 0,
};
const PER_SCORE = 5; // softmax: maximum, difference, exp, sum, division

/**
 * Floating-point operations of one run of a graph: two for each multiply-add of a product (Gemm, MatMul, Conv,
 * attention), one for each addition of a bias, and for the rest the counts per element listed in this file. Needs no
 * weights: shapes suffice.
 * @param bindings what the symbolic dimensions stand for, e.g. { batch: 2, rows: 3 }
 * @throws FemoError E_GRAPH if an operator has no count or a dimension no value
 */
export function countFlops(graph: Graph, bindings: Bindings): number {
  return graph.reachable().nodes.reduce((sum, node) => sum + nodeFlops(node, bindings), 0);
}

function nodeFlops(node: Node, bindings: Bindings): number {
  const shape = (value: { shape: readonly (number | string)[] } | null | undefined): number[] =>
    bindShape(value?.shape ?? [], bindings);
  const size = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);
  const out = size(shape(node.outputs[0]));
  const bias = node.inputs[2] ? out : 0;
  switch (node.op) {
    case "MatMul":
    case "FusedMatMul":
      return 2 * out * (shape(node.inputs[0]).at(-1) as number);
    case "Gemm":
      return 2 * out * (shape(node.inputs[0])[1] as number) + bias;
    case "Conv":
      return 2 * out * size(shape(node.inputs[1]).slice(1)) + bias;
    case "MultiHeadAttention": {
      const [batch, queries, width] = shape(node.inputs[0]) as [number, number, number];
      const keys = shape(node.inputs[1])[1] as number;
      const heads = node.attributes.num_heads as number;
      return 4 * batch * queries * keys * width + PER_SCORE * batch * heads * queries * keys;
    }
    default: {
      const count = PER_ELEMENT[node.op];
      if (count === undefined) throw new FemoError("E_GRAPH", `no FLOPs are known for the operator ${node.op}`);
      return count * out;
    }
  }
}
