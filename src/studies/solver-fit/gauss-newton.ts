import { inverse, solved } from "../linear-system.js";

/** Points (images) in many dimensions, one after the other, and where they are to come near to. */
export interface Targets {
  /** [points × size] */
  readonly targets: Float32Array;
  /** Of one point. */
  readonly size: number;
}

/** How far off points are: mean of log of the mean square, so that an image which went elsewhere does not outweigh all others. */
export function meanLogError(points: Float32Array, { targets, size }: Targets): number {
  const errors = squaredErrors(points, targets, size);
  return errors.reduce((sum, error) => sum + Math.log(error), 0) / errors.length;
}

/** Below it a point counts as there: half a level of 8 bits in -1 … 1. */
const FLOOR = (0.5 / 127.5) ** 2 / 3;

function squaredErrors(points: Float32Array, targets: Float32Array, size: number): Float64Array {
  const errors = new Float64Array(points.length / size);
  points.forEach((x, k) => {
    errors[Math.floor(k / size)] = (errors[Math.floor(k / size)] as number) + (x - (targets[k] as number)) ** 2 / size;
  });
  return errors.map((error) => Math.max(error, FLOOR));
}

/** The normal equations of a step, from a point of the parameters. */
export interface NormalEquations {
  /** [P][P], symmetric. */
  readonly matrix: readonly Float64Array[];
  readonly gradient: Float64Array;
}

/**
 * Gauss-Newton's equations for the sum of log mean squares: each point weighs by one over its mean square, and by its share.
 * @param points at the parameters
 * @param slopes of the points, by each parameter (`slopeOf`)
 */
export function normalEquations(
  points: Float32Array,
  slopes: readonly Float32Array[],
  { targets, size }: Targets,
): NormalEquations {
  const residual = points.map((x, k) => x - (targets[k] as number));
  const own = Array.from(squaredErrors(points, targets, size), (error, point) => {
    const part = (values: Float32Array) => values.subarray(point * size, (point + 1) * size);
    const [slopesHere, residualHere] = [slopes.map(part), part(residual)];
    const matrix = slopes.map(() => new Float64Array(slopes.length));
    slopesHere.forEach((a, p) => {
      slopesHere.slice(0, p + 1).forEach((b, q) => {
        const product = dot(a, b) / error;
        (matrix[p] as Float64Array)[q] = product;
        (matrix[q] as Float64Array)[p] = product;
      });
    });
    return { matrix, gradient: Float64Array.from(slopesHere, (a) => dot(a, residualHere) / error) };
  });
  return weighed(own, sharesOf(own));
}

/** As much as a point may bend the sum, in multiples of what points do on average. */
const MOST_BENDING = 3;
/** Of finding shares, by which they have settled. */
const ROUNDS = 20;
/** What the solver's numbers may not tell apart is of no account for a point's bending. */
const BENDING_DAMPING = 1e-2;

/**
 * How far points count. Where the smallest change brings a point elsewhere altogether (an image that takes another branch),
 * its slopes are a hundred times those of others and hold no further than that; a handful of such points would decide the
 * step of all. Their share is what bounds their bending, the trace of M⁻¹ Mᵢ, at a few times that of the average.
 */
function sharesOf(own: readonly NormalEquations[]): number[] {
  let shares = own.map(() => 1);
  for (let round = 0; round < ROUNDS; round++) {
    const all = inverse(damped(weighed(own, shares).matrix, BENDING_DAMPING));
    if (!all) return shares;
    const bending = own.map(({ matrix }) => matrix.reduce((sum, row, i) => sum + dot(row, all[i] as number[]), 0));
    const average = bending.reduce((sum, b, i) => sum + b * (shares[i] as number), 0) / own.length;
    shares = bending.map((b) => Math.min(1, (MOST_BENDING * average) / b));
  }
  return shares;
}

function weighed(own: readonly NormalEquations[], shares: readonly number[]): NormalEquations {
  const sum = (of: (equations: NormalEquations) => number) =>
    own.reduce((total, equations, point) => total + (shares[point] as number) * of(equations), 0);
  const first = own[0] as NormalEquations;
  return {
    matrix: first.matrix.map((row, p) => row.map((_, q) => sum(({ matrix }) => matrix[p]?.[q] as number))),
    gradient: first.gradient.map((_, p) => sum(({ gradient }) => gradient[p] as number)),
  };
}

/** How points go with a parameter, by what a step of it does to them. */
export const slopeOf = (points: Float32Array, moved: Float32Array, step: number): Float32Array =>
  moved.map((x, k) => (x - (points[k] as number)) / step);

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += (a[k] as number) * (b[k] as number);
  return sum;
}

/**
 * The step of Levenberg and Marquardt: (H + damping · diag H) x = −g.
 * @returns undefined if there is none
 */
export function dampedStep({ matrix, gradient }: NormalEquations, damping: number): number[] | undefined {
  return solved(damped(matrix, damping).map((row, i) => [...row, -(gradient[i] as number)]));
}

function damped(matrix: NormalEquations["matrix"], damping: number): number[][] {
  const largest = Math.max(...matrix.map((row, i) => row[i] as number), Number.MIN_VALUE);
  // A parameter without effect stays where it is.
  return matrix.map((row, i) => Array.from(row.with(i, ((row[i] as number) + 1e-12 * largest) * (1 + damping))));
}
