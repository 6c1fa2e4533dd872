import { FemoError } from "../errors.js";
import type { Graph } from "./graph.js";
import { type Bindings, bindShape, sizeOf } from "./shape.js";
import type { Node } from "./value.js";

/** Operations per element of the first output, or of the input that is reduced. Products are counted apart; what moves data counts nothing. */
const PER_ELEMENT: Readonly<Record<string, number>> = {
  Add: 1,
  Sub: 1,
  Mul: 1,
  Div: 1,
  Sqrt: 1,
  Sin: 1,
  Cos: 1,
  Sigmoid: 4, // exp, negation, addition, division
  Abs: 1,
  Relu: 1,
  Mish: 5, // exp, addition, logarithm, tanh, product
  Gelu: 8, // tanh form: 5 for the cubic and its scaling, tanh, addition, product
  QuickGelu: 6, // two products and a sigmoid
  Clip: 2, // two comparisons
  LayerNormalization: 8, // mean 1, variance 3, normalise 2, scale and bias 2
  SimplifiedLayerNormalization: 4, // mean square 2, normalise, scale
  RotaryEmbedding: 3, // two products and an addition
  InstanceNormalization: 8, // as LayerNormalization
  Softmax: 5, // maximum, difference, exp, sum, division
  ReduceMean: 1,
  ReduceSum: 1,
  ReduceMax: 1,
  AveragePool: 1, // for each pixel of a window
  MaxPool: 1,
  ArgMax: 1,
  TopK: 1, // a comparison
  Resize: 0, // to the nearest, the only kind there is: a copy
  Cast: 0,
  Reshape: 0,
  SpaceToDepth: 0,
  DepthToSpace: 0,
  Shape: 0,
  Transpose: 0,
  Concat: 0,
  Split: 0,
  Gather: 0,
  GatherND: 0,
  ScatterND: 0,
  Unsqueeze: 0,
  OneHot: 0,
  Range: 0,
  Expand: 0,
  ConstantOfShape: 0,
};

/** Operators that count each element of what they are given, not of what they give. */
const REDUCTIONS: ReadonlySet<string> = new Set(["ReduceMean", "ReduceSum", "ReduceMax", "ArgMax", "TopK"]);

/** Which input of MultiHeadAttention is added to its scores. */
const ATTENTION_BIAS = 5;

/** What counts as how many operations. */
export interface FlopsConvention {
  /** Each multiply-add of a product: Gemm, MatMul, Conv, attention. */
  readonly multiplyAdd: number;
  /** Each addition of a bias. */
  readonly bias: number;
  /** Each score of attention, for its softmax. */
  readonly score: number;
  /** Each element of attention's queries, for their scaling. */
  readonly query: number;
  /** Each element of the first output of the other operators; of the input of those that reduce it. */
  readonly perElement: Readonly<Record<string, number>>;
}

/** Every operation counts. */
export const everyOperation: FlopsConvention = {
  multiplyAdd: 2,
  bias: 1,
  score: 5, // as Softmax
  query: 0, // folded into the scores
  perElement: PER_ELEMENT,
};

/** Products count, two for each multiply-add, and nothing else but what is given. */
export const productsAnd = (rest: Partial<FlopsConvention>): FlopsConvention => ({
  multiplyAdd: 2,
  bias: 0,
  score: 0,
  query: 0,
  ...rest,
  perElement: { ...Object.fromEntries(Object.keys(PER_ELEMENT).map((op) => [op, 0])), ...rest.perElement },
});

/**
 * Floating-point operations of one run of a graph: two for each multiply-add of a product (Gemm, MatMul, Conv,
 * attention), one for each addition of a bias, and for the rest the counts per element listed in this file. Needs no
 * weights: shapes suffice, and products of 8-bit numbers count as those of float32 that they stand for, their rounding
 * and scaling nothing.
 * @param bindings what the symbolic dimensions stand for, e.g. { batch: 2, rows: 3 }
 * @throws FemoError E_GRAPH if an operator has no count or a dimension no value
 */
export function countFlops(graph: Graph, bindings: Bindings): number {
  return graph.reachable().nodes.reduce((sum, node) => sum + nodeFlops(node, bindings), 0);
}

/** Floating-point operations of one node. */
export function nodeFlops(node: Node, bindings: Bindings, convention: FlopsConvention = everyOperation): number {
  const { multiplyAdd, perElement } = convention;
  const shape = (value: { shape: readonly (number | string)[] } | null | undefined): number[] =>
    bindShape(value?.shape ?? [], bindings);
  const out = sizeOf(shape(node.outputs[0]));
  const bias = node.inputs[2] ? convention.bias * out : 0;
  switch (node.op) {
    case "MatMul":
    case "FusedMatMul":
      return multiplyAdd * out * (shape(node.inputs[0]).at(node.attributes.transA ? -2 : -1) as number);
    case "Gemm":
      return multiplyAdd * out * (shape(node.inputs[0])[1] as number) + bias;
    case "Conv":
      return multiplyAdd * out * sizeOf(shape(node.inputs[1]).slice(1)) + bias;
    case "MultiHeadAttention": {
      const [batch, queries, width] = shape(node.inputs[0]) as [number, number, number];
      const keys = shape(node.inputs[1]).at(-2) as number;
      const heads = node.attributes.num_heads as number;
      const products = 2 * multiplyAdd * batch * queries * keys * width;
      const perScore = convention.score + (node.inputs[ATTENTION_BIAS] ? convention.bias : 0);
      return products + perScore * batch * heads * queries * keys + convention.query * batch * queries * width;
    }
    case "AveragePool":
    case "MaxPool":
      return (perElement[node.op] ?? 0) * out * sizeOf(node.attributes.kernel_shape as readonly number[]);
    case "Softmax":
      return convention.score * out;
    case "ReduceSum":
    case "ReduceMean":
      return (perElement.Add ?? 0) * sizeOf(shape(node.inputs[0]));
    default: {
      const count = perElement[node.op];
      if (count === undefined) throw new FemoError("E_GRAPH", `no FLOPs are known for the operator ${node.op}`);
      return count * (REDUCTIONS.has(node.op) ? sizeOf(shape(node.inputs[0])) : out);
    }
  }
}
