import { type Forecaster, unit, zeros } from "./forecaster.js";

/**
 * The polynomial through the last m + 1 true features, exact to degree m at any spacing: what TaylorSeer would be if
 * its differences were divided ones. S = the features themselves, newest first; c = Lagrange weights, which are
 * Newton's form with the differences multiplied out.
 * @param order m >= 0
 */
export function newton(order: number): Forecaster<readonly number[]> {
  const size = order + 1;
  return {
    stateSize: size,
    start: () => [],
    update(positions, { position }) {
      const held = [position, ...positions].slice(0, size);
      const rows = Array.from({ length: size }, (_, i) =>
        i >= held.length ? zeros(size + 1) : unit(size + 1, i === 0 ? size : i - 1),
      );
      return { memory: held, rows };
    },
    combine(positions, x) {
      if (positions.length === 0) return undefined;
      return Array.from({ length: size }, (_, i) => {
        if (i >= positions.length) return 0;
        const here = positions[i] as number;
        return positions.reduce((w, other, j) => (j === i ? w : (w * (x - other)) / (here - other)), 1);
      });
    },
  };
}
