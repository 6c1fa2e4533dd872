import { FemoError } from "../errors.js";
import { solved } from "./linear-system.js";

/**
 * The polynomial that comes nearest to some points, by least squares in float64.
 * @returns its coefficients, highest power first
 * @throws FemoError E_OPTION if the points have too few different x for the degree
 */
export function fitPolynomial(points: readonly (readonly [x: number, y: number])[], degree: number): number[] {
  const scale = Math.max(...points.map(([x]) => Math.abs(x))); // x within -1 .. 1 keeps the equations well conditioned
  const powers = points.map(([x]) => Array.from({ length: degree + 1 }, (_, i) => (x / scale) ** (degree - i)));
  const sumOver = (of: (row: readonly number[], point: number) => number): number =>
    powers.reduce((sum, row, point) => sum + of(row, point), 0);
  const equations = Array.from({ length: degree + 1 }, (_, i) => [
    ...Array.from({ length: degree + 1 }, (_, j) => sumOver((row) => (row[i] as number) * (row[j] as number))),
    sumOver((row, point) => (row[i] as number) * (points[point]?.[1] as number)),
  ]);
  const coefficients = solved(equations);
  if (coefficients) return coefficients.map((c, i) => c / scale ** (degree - i));
  throw new FemoError(
    "E_OPTION",
    `expected changes of at least ${degree + 1} different sizes to fit: draw more images or steps`,
  );
}
