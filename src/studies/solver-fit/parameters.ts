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
 * Weights of the x₀ of earlier steps, the newest taking what is left of 1; what the model is told at each run; and the level
 * that the solver takes the latent to be at: a model may see another in what a few runs have made of noise.
 * @param history so many earlier steps of each are free; older ones keep the weights of `start`
 * @param numTrainTimesteps of a diffusion; a flow has none: its timesteps are numbers up to 1, not whole ones
 */
export function solverParameters(
  start: MultistepSolver,
  history: number,
  numTrainTimesteps?: number,
): SolverParameters {
  const isFlow = numTrainTimesteps === undefined;
  const range = isFlow ? { least: 1e-4, most: 1, apart: 1e-4 } : { least: 0, most: numTrainTimesteps - 1, apart: 1 };
  const { timesteps: first, levelTimesteps: firstLevels = first, table: begun } = start;
  const n = first.length;
  const places = begun.flatMap((row, i) =>
    row.slice(0, i).flatMap((_, j) => (i - j <= history ? [[i, j] as const] : [])),
  );
  const told = falling(first, range, isFlow);
  const levels = falling(firstLevels, range, true);
  return {
    count: places.length + 2 * n,
    steps: [...places.map(() => WEIGHT_STEP), ...told.steps, ...levels.steps],
    of: ({ timesteps, levelTimesteps = timesteps, table }) => [
      ...places.map(([i, j]) => table[i]?.[j] as number),
      ...timesteps,
      ...levelTimesteps,
    ],
    solver(values) {
      const table = begun.map((row) => [...row]);
      places.forEach(([i, j], k) => {
        (table[i] as number[])[j] = values[k] as number;
      });
      for (const row of table) row[row.length - 1] = 1 - row.slice(0, -1).reduce((a, b) => a + b, 0);
      const timesteps = told.legal(values.slice(places.length, places.length + n));
      const levelTimesteps = levels.legal(values.slice(places.length + n));
      const end = isFlow ? {} : { finalAlphaBar: start.finalAlphaBar ?? 1 };
      return { ...start, timesteps, levelTimesteps, table, ...end };
    },
  };
}

/** In what range numbers fall, and how far they keep apart at least. */
interface Range {
  readonly least: number;
  readonly most: number;
  readonly apart: number;
}

/** Numbers that fall. */
interface Falling {
  readonly steps: readonly number[];
  /** The nearest, or about, that such numbers may be. */
  legal(wanted: readonly number[]): number[];
}

function falling(first: readonly number[], range: Range, areFractions: boolean): Falling {
  const gaps = first.slice(1).map((t, i) => (first[i] as number) - t);
  const apart = [0, ...gaps.map((gap) => Math.max(range.apart, CLOSEST * gap))];
  const steps = gaps.map((gap) => (areFractions ? TIME_STEP * gap : Math.max(2, Math.round(TIME_STEP * gap))));
  return {
    // The first can go down only, where it is the latest that there is.
    steps: [-(steps[0] as number), ...steps],
    legal(wanted) {
      const found: number[] = [];
      for (const [i, t] of wanted.entries()) {
        const room = apart.slice(i + 1).reduce((a, b) => a + b, 0); // for all that follow
        const most = i === 0 ? range.most : (found[i - 1] as number) - (apart[i] as number);
        const within = Math.max(range.least, Math.min(most, Math.max(range.least + room, t)));
        found.push(areFractions ? within : Math.round(within));
      }
      return found;
    },
  };
}
