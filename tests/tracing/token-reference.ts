/** The choice of tokens in float64, one sample at a time. */

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Of each key the mean of softmax(q k / sqrt(d)) over heads and queries. */
export function meanAttention(
  q: readonly number[],
  k: readonly number[],
  { b, queries, keys, width, heads }: { b: number; queries: number; keys: number; width: number; heads: number },
): number[] {
  const head = width / heads;
  const mean = new Array<number>(keys).fill(0);
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < queries; i++) {
      const powers = mean.map((_, j) => {
        const products = Array.from({ length: head }, (_, d) => {
          const [left, right] = [(b * queries + i) * width + h * head + d, (b * keys + j) * width + h * head + d];
          return (q[left] as number) * (k[right] as number);
        });
        return Math.exp(sum(products) / Math.sqrt(head));
      });
      powers.forEach((power, j) => {
        mean[j] = (mean[j] as number) + power / sum(powers) / heads / queries;
      });
    }
  }
  return mean;
}

export interface ScoreOptions {
  readonly lambda: number;
  readonly bonus: number;
  readonly grid: readonly [rows: number, columns: number];
  readonly cell: number;
}

/** s1 + lambda s3, and the bonus for the first best token of every cell. */
export function scoresOf(mass: readonly number[], age: readonly number[], options: ScoreOptions): number[] {
  const { lambda, bonus, grid, cell } = options;
  const norm = Math.sqrt(sum(mass.map((x) => x * x)));
  const plain = mass.map((x, t) => x / norm + lambda * (age[t] as number));
  const [, columns] = grid;
  const cellOf = (t: number) => `${Math.floor(Math.floor(t / columns) / cell)} ${Math.floor((t % columns) / cell)}`;
  const best = new Map<string, number>();
  plain.forEach((score, t) => {
    const known = best.get(cellOf(t));
    if (known === undefined || score > (plain[known] as number)) best.set(cellOf(t), t);
  });
  const winners = new Set(best.values());
  return plain.map((score, t) => (winners.has(t) ? score * (1 + bonus) : score));
}

/** The `count` tokens of the greatest scores, in their order. */
export const greatest = (scores: readonly number[], count: number): number[] =>
  [...scores.keys()]
    .sort((a, b) => (scores[b] as number) - (scores[a] as number))
    .slice(0, count)
    .sort((a, b) => a - b);
