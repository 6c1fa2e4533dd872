import type { Dim, Graph, Value } from "../graph/index.js";

/**
 * An image as tokens, in the way of ViT (Dosovitskiy et al., arXiv 2010.11929): a learned token, then its patches row by
 * row, all with where they are added.
 * @param image [B, 3, S, S]
 * @param patches weight [D, 3, p, p] and bias [D] of the convolution over them
 * @param first [1, 1, D]
 * @param places [1, 1 + (S/p)^2, D]
 * @returns [B, 1 + (S/p)^2, D]
 */
export function imageTokens(
  image: Value,
  patches: readonly [weight: Value, bias: Value | null],
  first: Value,
  places: Value,
): Value {
  const grid = image.patchConv(...patches); // [B, D, S/p, S/p]
  const [batch, width, rows, columns] = grid.shape as [Dim, number, number, number];
  const tokens = grid.reshape([batch, width, rows * columns]).transpose([0, 2, 1]);
  const start = image.zeros(1).reshape([batch, 1, 1]).add(first); // once for each image
  return start.concat([tokens], 1).add(places);
}

/** The first of the tokens of each image, or text: [B, T, D] to [B, D]. */
export function firstToken(graph: Graph, tokens: Value): Value {
  const [batch, , width] = tokens.shape as [Dim, Dim, number];
  return tokens
    .transpose([1, 0, 2])
    .gather(graph.integers([0]))
    .reshape([batch, width]);
}
