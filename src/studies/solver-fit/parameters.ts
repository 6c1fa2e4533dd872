import type { MultistepSolver } from "../../samplers/index.js";

/** The numbers of a solver that a fit may change, as one vector. */
export interface SolverParameters {
  readonly count: number;
  /** By how much each is moved to see what it does. */
  readonly steps: readonly number[];
  of(solver: MultistepSolver): number[];
  /** A solver with these numbers, brought to where a solver can be: timesteps that fall, and whole ones of a diffusion. */
  solver(values: readonly number[]): MultistepSolver;
}

const WEIGHT_STEP = 0.01;
/** Of what lies between a timestep and the next. */
const TIME_STEP = 0.05;
/** As far as a timestep keeps from its neighbours, of what the start had there. */
const CLOSEST = 0.2;

/**
 * Weights of the x₀ of earlier steps, the newest taking what is left of 1, and all timesteps. The first need not be where the
 * noise is: a few runs may well take it for less.
 * @param history so many earlier steps of each are free; older ones keep the weights of `start`
 * @param numTrainTimesteps of a diffusion; a flow has none: its timesteps are numbers up to 1, not whole ones
 */
export function solverParameters(
  start: MultistepSolver,
  history: number,
  numTrainTimesteps?: number,
): SolverParameters {
  const isFlow = numTrainTimesteps === undefined;
  const latest = isFlow ? 1 : numTrainTimesteps - 1;
  const { timesteps: first, table: begun } = start;
  const n = first.length;
  const places = begun.flatMap((row, i) =>
    row.slice(0, i).flatMap((_, j) => (i - j <= history ? [[i, j] as const] : [])),
  );
  const gaps = first.map((t, i) => (i === 0 ? 0 : (first[i - 1] as number) - t));
  const smallest = isFlow ? 1e-4 : 1;
  const atLeast = gaps.map((gap, i) => (i === 0 ? 0 : Math.max(smallest, CLOSEST * gap)));
  const whole = (t: number): number => (isFlow ? t : Math.round(t));
  const timeSteps = gaps.slice(1).map((gap) => (isFlow ? TIME_STEP * gap : Math.max(2, Math.round(TIME_STEP * gap))));
  return {
    count: places.length + n,
    // The first can go down only, where it is the latest that there is.
    steps: [...places.map(() => WEIGHT_STEP), -(timeSteps[0] as number), ...timeSteps],
    of: ({ timesteps, table }) => [...places.map(([i, j]) => table[i]?.[j] as number), ...timesteps],
    solver(values) {
      const table = begun.map((row) => [...row]);
      places.forEach(([i, j], k) => {
        (table[i] as number[])[j] = values[k] as number;
      });
      for (const row of table) row[row.length - 1] = 1 - row.slice(0, -1).reduce((a, b) => a + b, 0);
      const timesteps: number[] = [];
      for (let i = 0; i < n; i++) {
        // Room is left for all that follow.
        const least = (isFlow ? smallest : 0) + atLeast.slice(i + 1).reduce((a, b) => a + b, 0);
        const most = i === 0 ? latest : (timesteps[i - 1] as number) - (atLeast[i] as number);
        timesteps.push(whole(Math.min(most, Math.max(least, values[places.length + i] as number))));
      }
      return { ...start, timesteps, table, ...(!isFlow && { finalAlphaBar: start.finalAlphaBar ?? 1 }) };
    },
  };
}
