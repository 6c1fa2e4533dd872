import { FemoError } from "../errors.js";

/** Below this share of what it was, a pivot is rounding. */
const SINGULAR = 1e-13;

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
  return solved(equations).map((c, i) => c / scale ** (degree - i));
}

/** Solves A x = b by elimination with pivots. @param rows [A | b], A symmetric; they are changed */
function solved(rows: number[][]): number[] {
  const size = rows.length;
  const largest = Math.max(...rows.flatMap((row) => row.slice(0, size).map(Math.abs)));
  for (let i = 0; i < size; i++) {
    const pivot = rows.reduce((best, row, r) => (r >= i && magnitude(row, i) > magnitude(rows[best], i) ? r : best), i);
    [rows[i], rows[pivot]] = [rows[pivot] as number[], rows[i] as number[]];
    const own = rows[i] as number[];
    if (!(magnitude(own, i) > SINGULAR * largest)) {
      throw new FemoError(
        "E_OPTION",
        `expected changes of at least ${size} different sizes to fit: draw more images or steps`,
      );
    }
    for (const row of rows) {
      if (row === own) continue;
      const factor = (row[i] as number) / (own[i] as number);
      for (let j = i; j <= size; j++) row[j] = (row[j] as number) - factor * (own[j] as number);
    }
  }
  return rows.map((row, i) => (row[size] as number) / (row[i] as number));
}

const magnitude = (row: readonly number[] | undefined, column: number): number => Math.abs(row?.[column] ?? 0);
