/** Below this share of the largest element a pivot is rounding. */
const SINGULAR = 1e-13;

/**
 * Solves A x = b by elimination with pivots.
 * @param rows [A | b], A symmetric; they are changed
 * @returns undefined if A is singular
 */
export function solved(rows: number[][]): number[] | undefined {
  return solvedColumns(rows)?.map(([x]) => x as number);
}

/** @returns undefined if a symmetric matrix is singular */
export function inverse(matrix: readonly (readonly number[])[]): number[][] | undefined {
  return solvedColumns(matrix.map((row, i) => [...row, ...matrix.map((_, j) => (i === j ? 1 : 0))]));
}

/** @param rows [A | B], A as long as there are rows  @returns X of A X = B */
function solvedColumns(rows: number[][]): number[][] | undefined {
  const size = rows.length;
  const largest = Math.max(...rows.flatMap((row) => row.slice(0, size).map(Math.abs)));
  for (let i = 0; i < size; i++) {
    const pivot = rows.reduce((best, row, r) => (r >= i && magnitude(row, i) > magnitude(rows[best], i) ? r : best), i);
    [rows[i], rows[pivot]] = [rows[pivot] as number[], rows[i] as number[]];
    const own = rows[i] as number[];
    if (!(magnitude(own, i) > SINGULAR * largest)) return undefined;
    for (const row of rows) {
      if (row === own) continue;
      const factor = (row[i] as number) / (own[i] as number);
      for (let j = i; j < row.length; j++) row[j] = (row[j] as number) - factor * (own[j] as number);
    }
  }
  return rows.map((row, i) => row.slice(size).map((x) => x / (row[i] as number)));
}

const magnitude = (row: readonly number[] | undefined, column: number): number => Math.abs(row?.[column] ?? 0);
