import { FemoError } from "../errors.js";
import { type DType, formatShape, productDim, type Shape, type Value } from "../graph/index.js";
import type { MlpLayers } from "./trace.js";

/**
 * Sparse deltas (Chipmunk, github.com/sandyresearch/chipmunk): a step that keeps leaves what its layers gave, and a step
 * that corrects adds to it what changes most. Corrections leave nothing themselves, where Chipmunk's build on one another:
 * to write all activations anew takes a quarter as long as the correction.
 */
export interface Sparse {
  /** "keep": everything is computed. "correct": what the last such step left, corrected. */
  readonly step: "keep" | "correct";
  /** Share of an MLP's hidden neurons that are computed anew, above 0 to 1; at least one neuron is. */
  readonly mlpColumns: number;
  /** Neurons are chosen for so many tokens together, or for the next fewer that divide their number. */
  readonly mlpGroup: number;
  /** Share of the keys that queries attend to anew, above 0 to 1; at least one key. */
  readonly attentionKeys: number;
  /** Keys are chosen for so many queries together, each head its own, or for the next fewer that divide their number. */
  readonly attentionGroup: number;
  /** The first so many blocks are always computed whole. */
  readonly denseLayers: number;
}

/** What one layer leaves with the engine, and finds there. Batch in front, so that images can part. */
export interface Kept {
  take(part: string, shape: Shape, dtype?: DType): Value;
  leave(part: string, value: Value): void;
}

/**
 * An MLP, y = act(x W1^T + b1) W2^T + b2. A correction takes, for each group of tokens, the neurons whose mean
 * pre-activation has changed most since y was kept, and adds (act now - act kept) W2^T of these. It reads rows of W1 and
 * of W2^T, and the activations lie neuron by neuron, so that all that is gathered is contiguous.
 */
export function sparseMlp(x: Value, { widen, activate, narrow }: MlpLayers, sparse: Sparse, kept: Kept): Value {
  const [[w1, b1], [w2]] = [widen, narrow];
  const [batch, tokens, width] = sizesOf(x);
  const [wide, narrowed] = [w1, w2].map(({ shape }) => shape[0]) as [number, number];
  const rows = groupSize(tokens, sparse.mlpGroup);
  const groups = tokens / rows;
  const grouped = x.reshape([batch, groups, rows, width]);
  if (sparse.step === "keep") {
    const hidden = x.linear(w1, b1);
    const activations = activate(hidden);
    const y = activations.linear(...narrow);
    kept.leave("mean", hidden.reshape([batch, groups, rows, wide]).mean([2]).reshape([batch, groups, wide]));
    kept.leave("activations", activations.reshape([batch, groups, rows, wide]).transpose([0, 1, 3, 2]));
    kept.leave("output", y);
    return y;
  }
  // W1 on the left: on the right ONNX Runtime would hold a second copy of it, in the order of products.
  const means = grouped.mean([2]).reshape([productDim([batch, groups]), width]);
  const mean = w1.linear(means, null).transpose([1, 0]).reshape([batch, groups, wide]).add(b1);
  const change = mean.sub(kept.take("mean", mean.shape)).abs();
  const chosen = change.topK(countOf(wide, sparse.mlpColumns)); // [B, G, k]
  const now = activate(w1.gather(chosen).matMulSwapped(grouped, { right: true }).add(b1.gather(chosen).unsqueeze(3))); // [B, G, k, R]
  const then = kept.take("activations", [batch, groups, wide, rows]).gatherRows(chosen);
  const columns = w2.transpose([1, 0]).gather(chosen); // [B, G, k, D']
  const delta = now.sub(then).matMulSwapped(columns, { left: true }); // [B, G, R, D']
  return kept.take("output", [batch, tokens, narrowed]).add(delta.reshape([batch, tokens, narrowed]));
}

/**
 * Softmax attention of queries [B, T, D] over keys and values [B, S, D]. A step that keeps finds, for each head and group of
 * queries, the keys that get the most of their attention, and leaves what attention to these alone lacks; a correction
 * attends to these alone and adds it.
 */
export function sparseAttention(
  [queries, keys, values]: readonly [Value, Value, Value],
  heads: number,
  sparse: Sparse,
  kept: Kept,
): Value {
  const [batch, tokens, width] = sizesOf(queries);
  const [, length] = sizesOf(keys);
  const rows = groupSize(tokens, sparse.attentionGroup);
  const groups = tokens / rows;
  const count = countOf(length, sparse.attentionKeys);
  const runs = productDim([groups, batch]);
  /** @param chosen [B, G H n]: rows of what has the tokens and heads of keys or values as rows */
  const attendTo = (chosen: Value): Value => {
    const [k, v] = [keys, values].map((x) =>
      x
        .reshape([batch, length * heads, width / heads])
        .gatherRows(chosen)
        .reshape([runs, heads, count, width / heads]),
    ) as [Value, Value];
    return queries.reshape([runs, rows, width]).attention(k, v, heads).reshape([batch, tokens, width]);
  };
  if (sparse.step === "correct") {
    const chosen = kept.take("chosen", [batch, groups * heads * count], "int64");
    return kept.take("rest", queries.shape).add(attendTo(chosen));
  }
  const [q, k, v] = [queries, keys, values].map((x) => splitHeads(x, heads)) as [Value, Value, Value];
  const scale = queries.graph.scalar((width / heads) ** -0.5);
  const scores = q.mul(scale).matMul(k.transpose([0, 1, 3, 2])); // [B, H, T, S]
  const weights = scores.softmax();
  const dense = weights.matMul(v).transpose([0, 2, 1, 3]).reshape([batch, tokens, width]);
  const chosen = heaviest(weights, groups, count);
  kept.leave("chosen", chosen);
  kept.leave("rest", dense.sub(attendTo(chosen)));
  return dense;
}

/**
 * The keys with the greatest sums of the softmax's columns, for each head and group of queries.
 * @param weights [B, H, T, S]
 * @returns [B, G H n], each as a row of [S H, D / H]
 */
function heaviest(weights: Value, groups: number, count: number): Value {
  const [batch, heads, tokens, length] = weights.shape as [Shape[number], number, number, number];
  const { graph } = weights;
  const grouped = weights.reshape([batch, heads, groups, tokens / groups, length]);
  const keys = grouped.sum([3]).reshape([batch, heads, groups, length]).transpose([0, 2, 1, 3]).topK(count); // [B, G, H, n]
  const numbers = BigInt64Array.from({ length: heads }, (_, head) => BigInt(head));
  const rows = keys.mul(graph.integers([heads])).add(graph.constant(numbers, [heads, 1]));
  return rows.reshape([batch, groups * heads * count]);
}

/** [B, T, D] to [B, heads, T, D / heads] */
function splitHeads(x: Value, heads: number): Value {
  const [batch, tokens, width] = sizesOf(x);
  return x.reshape([batch, tokens, heads, width / heads]).transpose([0, 2, 1, 3]);
}

/** @throws FemoError E_GRAPH if the number of tokens or their width is not known before the graph runs */
function sizesOf({ shape }: Value): readonly [batch: Shape[number], tokens: number, width: number] {
  const [batch, tokens, width] = shape;
  if (shape.length === 3 && batch !== undefined && typeof tokens === "number" && typeof width === "number") {
    return [batch, tokens, width];
  }
  throw new FemoError(
    "E_GRAPH",
    `a sparse step: expected [batch, tokens, width] of known sizes, found ${formatShape(shape)}`,
  );
}

/** The greatest divisor of a number of tokens up to a limit. */
function groupSize(tokens: number, most: number): number {
  let size = Math.min(tokens, most);
  while (tokens % size !== 0) size--;
  return size;
}

const countOf = (size: number, share: number): number => Math.max(1, Math.round(share * size));
