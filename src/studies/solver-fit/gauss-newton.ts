import { solved } from "../linear-system.js";

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
 * Gauss-Newton's equations for the sum of log mean squares: each point weighs by one over its mean square.
 * @param points at the parameters
 * @param slopes of the points, by each parameter (`slopeOf`)
 */
export function normalEquations(
  points: Float32Array,
  slopes: readonly Float32Array[],
  { targets, size }: Targets,
): NormalEquations {
  const weights = squaredErrors(points, targets, size).map((error) => 1 / error);
  const residual = points.map((x, k) => x - (targets[k] as number));
  const matrix = slopes.map(() => new Float64Array(slopes.length));
  slopes.forEach((a, p) => {
    slopes.slice(0, p + 1).forEach((b, q) => {
      const product = weightedDot(a, b, weights);
      (matrix[p] as Float64Array)[q] = product;
      (matrix[q] as Float64Array)[p] = product;
    });
  });
  return { matrix, gradient: Float64Array.from(slopes, (slope) => weightedDot(slope, residual, weights)) };
}

/** How points go with a parameter, by what a step of it does to them. */
export const slopeOf = (points: Float32Array, moved: Float32Array, step: number): Float32Array =>
  moved.map((x, k) => (x - (points[k] as number)) / step);

/** @param weights of the points, which follow one another in a and b */
function weightedDot(a: Float32Array, b: Float32Array, weights: Float64Array): number {
  const size = a.length / weights.length;
  let total = 0;
  for (const [point, weight] of weights.entries()) {
    let sum = 0;
    for (let k = point * size; k < (point + 1) * size; k++) sum += (a[k] as number) * (b[k] as number);
    total += weight * sum;
  }
  return total;
}

/**
 * The step of Levenberg and Marquardt: (H + damping · diag H) x = −g.
 * @returns undefined if there is none
 */
export function dampedStep({ matrix, gradient }: NormalEquations, damping: number): number[] | undefined {
  const largest = Math.max(...matrix.map((row, i) => row[i] as number), Number.MIN_VALUE);
  const equations = matrix.map((row, i) => {
    // A parameter without effect stays where it is.
    const diagonal = ((row[i] as number) + 1e-12 * largest) * (1 + damping);
    return [...row.with(i, diagonal), -(gradient[i] as number)];
  });
  return solved(equations);
}
