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
 * @param moved the points with each parameter moved by its step
 * @param steps of the parameters
 */
export function normalEquations(
  points: Float32Array,
  moved: readonly Float32Array[],
  steps: readonly number[],
  { targets, size }: Targets,
): NormalEquations {
  const weights = squaredErrors(points, targets, size).map((error) => 1 / error);
  const slopes = moved.map((at, p) => {
    const slope = new Float32Array(points.length);
    for (let k = 0; k < slope.length; k++) {
      const root = Math.sqrt(weights[Math.floor(k / size)] as number);
      slope[k] = (((at[k] as number) - (points[k] as number)) / (steps[p] as number)) * root;
    }
    return slope;
  });
  const residual = points.map(
    (x, k) => (x - (targets[k] as number)) * Math.sqrt(weights[Math.floor(k / size)] as number),
  );
  const matrix = slopes.map((a, p) => {
    const row = new Float64Array(slopes.length);
    slopes.forEach((b, q) => {
      if (q <= p) row[q] = dot(a, b);
    });
    return row;
  });
  matrix.forEach((row, p) => {
    for (let q = 0; q < p; q++) (matrix[q] as Float64Array)[p] = row[q] as number;
  });
  return { matrix, gradient: Float64Array.from(slopes, (slope) => dot(slope, residual)) };
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let k = 0; k < a.length; k++) sum += (a[k] as number) * (b[k] as number);
  return sum;
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
