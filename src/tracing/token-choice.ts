import { FemoError } from "../errors.js";
import type { Dim, Value } from "../graph/index.js";

/** What a token's score is made of beside the attention that it got. */
export interface Scoring {
  /** [B, T, 1]: the steps since it was computed. */
  readonly age: Value;
  /** [2]: what each of them adds, and the bonus. */
  readonly scoring: Value;
  /** Rows and columns if the tokens lie on a grid; without one there is no bonus. */
  readonly grid: readonly [rows: number, columns: number] | undefined;
  /** Side of a cell in tokens. */
  readonly cell: number | undefined;
}

/**
 * How much each token wants to be computed anew (ToCa, Zou et al., arXiv 2410.05317), [B, T]: s1 + lambda s3, of which
 * the best in each cell of the grid has its own once more, times the bonus.
 * @param mass s1 before it is normalised over the tokens, [B, T]
 */
export function tokenScores(mass: Value, { age, scoring, grid, cell }: Scoring): Value {
  const [lambda, bonus] = scoring.chunk(2, 0) as [Value, Value];
  const s1 = mass.div(mass.mul(mass).sum([1]).sqrt());
  const score = s1.add(age.reshape(mass.shape, mass).mul(lambda));
  return grid && cell !== undefined ? withBonus(score, bonus, grid, cell) : score;
}

function withBonus(score: Value, bonus: Value, [rows, columns]: readonly [number, number], cell: number): Value {
  if (rows % cell !== 0 || columns % cell !== 0) {
    throw new FemoError("E_OPTION", `cell: expected a divisor of ${rows} and ${columns} tokens, found ${cell}`);
  }
  const [batch] = score.shape as [Dim];
  const squares = [batch, rows / cell, cell, columns / cell, cell];
  const byCell = [0, 1, 3, 2, 4]; // its own inverse
  const apart = score.reshape(squares).transpose(byCell);
  const flat = apart.reshape([batch, (rows / cell) * (columns / cell), cell * cell]);
  const best = flat.argMax().oneHot(cell * cell);
  const raised = flat.add(best.mul(flat.max([2])).mul(bonus));
  return raised.reshape(apart.shape).transpose(byCell).reshape(score.shape);
}

/** A step later: chosen tokens are new, the others a step older.  age: [B, T, 1], indices: [B, k] */
export function nextAge(age: Value, indices: Value): Value {
  return age.add(age.graph.scalar(1)).scatterRows(indices, indices.zeros(2).unsqueeze(2));
}

/**
 * How much attention each key gets, the mean over heads and queries, [B, S]: softmax, which attention itself never
 * writes down, is computed once more.
 * @param queries [B, T, D]
 * @param keys [B, S, D]
 */
export function columnMass(queries: Value, keys: Value, heads: number): Value {
  const [batch, , width] = queries.shape as [Dim, Dim, number];
  const head = width / heads;
  const split = (x: Value, order: readonly number[]): Value =>
    x.reshape([batch, x.shape[1] as Dim, heads, head]).transpose(order);
  const scaled = split(queries.mul(queries.graph.scalar(1 / Math.sqrt(head))), [0, 2, 1, 3]);
  const scores = scaled.matMul(split(keys, [0, 2, 3, 1])); // [B, heads, T, S]
  return scores
    .softmax()
    .mean([1, 2])
    .reshape([batch, keys.shape[1] as Dim], keys);
}
