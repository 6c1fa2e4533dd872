import type { Forecaster } from "./forecaster.js";

/**
 * The polynomial through the last m + 1 true features, exact to degree m at any spacing: what TaylorSeer would be if
 * its differences were divided ones. S = those features; c = Lagrange weights, which are Newton's form with the
 * differences multiplied out. The memory is their positions.
 * @param order m >= 0
 * @param between the order with which features between the last two are made out, for hindsight
 */
export function newton(order: number, between = order): Forecaster<readonly number[]> {
  const history = Math.max(order, between) + 1;
  return {
    history,
    recent: history,
    averages: 0,
    start: () => [],
    update: (positions, { position }) => ({ memory: [position, ...positions].slice(0, history), rows: [] }),
    combine(positions, x) {
      if (positions.length === 0) return undefined;
      const used = positions.slice(0, 1 + (isBetween(x, positions) ? between : order));
      return Array.from({ length: history }, (_, i) => {
        if (i >= used.length) return 0;
        const here = used[i] as number;
        return used.reduce((w, other, j) => (j === i ? w : (w * (x - other)) / (here - other)), 1);
      });
    },
  };
}

const isBetween = (x: number, [last, before]: readonly number[]): boolean =>
  last !== undefined && before !== undefined && (x - last) * (x - before) < 0;
