import type { Forecaster } from "./forecaster.js";

/**
 * The polynomial through the last m + 1 true features, exact to degree m at any spacing: what TaylorSeer would be if
 * its differences were divided ones. S = those features; c = Lagrange weights, which are Newton's form with the
 * differences multiplied out. The memory is their positions.
 * @param order m >= 0
 */
export function newton(order: number): Forecaster<readonly number[]> {
  const history = order + 1;
  return {
    history,
    recent: history,
    averages: 0,
    start: () => [],
    update: (positions, { position }) => ({ memory: [position, ...positions].slice(0, history), rows: [] }),
    combine(positions, x) {
      if (positions.length === 0) return undefined;
      return Array.from({ length: history }, (_, i) => {
        if (i >= positions.length) return 0;
        const here = positions[i] as number;
        return positions.reduce((w, other, j) => (j === i ? w : (w * (x - other)) / (here - other)), 1);
      });
    },
  };
}
