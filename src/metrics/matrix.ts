import { FemoError } from "../errors.js";

/** A matrix in float64, row by row. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  /** [rows, columns] */
  readonly data: Float64Array;
}

export const zeros = (rows: number, columns: number): Matrix => ({
  rows,
  columns,
  data: new Float64Array(rows * columns),
});

/** What long computations let others do meanwhile. */
export interface PauseOptions {
  readonly signal?: AbortSignal | undefined;
}

const PAUSE_AFTER_MS = 50;

/**
 * A call that now and then lets the event loop run, so that nothing waits long for a computation.
 * @throws the signal's reason if it was aborted
 */
export function pauses({ signal }: PauseOptions = {}): () => Promise<void> | undefined {
  let last = performance.now();
  return () => {
    if (performance.now() - last < PAUSE_AFTER_MS) return undefined;
    return new Promise<void>((resolve) => setTimeout(resolve)).then(() => {
      signal?.throwIfAborted();
      last = performance.now();
    });
  };
}

/** A B^T: every entry is an inner product of two rows. */
export async function timesTransposed(a: Matrix, b: Matrix, options: PauseOptions = {}): Promise<Matrix> {
  const product = zeros(a.rows, b.rows);
  const pause = pauses(options);
  for (let top = 0; top < a.rows; top += BLOCK) {
    const bottom = Math.min(top + BLOCK, a.rows);
    // A block of B's rows stays in the cache for all of a block of A's.
    for (let left = 0; left < b.rows; left += BLOCK) {
      const right = Math.min(left + BLOCK, b.rows);
      for (let i = top; i < bottom; i += 4) {
        for (let j = left; j < right; j += 2) fillTile(product, a, b, i, Math.min(4, bottom - i), j, right - j);
      }
      await pause();
    }
  }
  return product;
}

const BLOCK = 32;

/** Four rows of A by two of B: each number that is read counts several times. */
function fillTile(out: Matrix, a: Matrix, b: Matrix, i: number, rows: number, j: number, columns: number): void {
  const [x, y, d, n] = [a.data, b.data, a.columns, out.columns];
  if (rows < 4 || columns < 2) {
    for (let r = i; r < i + rows; r++) {
      for (let c = j; c < j + Math.min(columns, 2); c++) out.data[r * n + c] = innerProduct(x, r * d, y, c * d, d);
    }
    return;
  }
  const [a0, a1, a2, a3] = [i * d, (i + 1) * d, (i + 2) * d, (i + 3) * d];
  const [b0, b1] = [j * d, (j + 1) * d];
  let s00 = 0;
  let s01 = 0;
  let s10 = 0;
  let s11 = 0;
  let s20 = 0;
  let s21 = 0;
  let s30 = 0;
  let s31 = 0;
  for (let k = 0; k < d; k++) {
    const [p, q] = [y[b0 + k] as number, y[b1 + k] as number];
    const v0 = x[a0 + k] as number;
    const v1 = x[a1 + k] as number;
    const v2 = x[a2 + k] as number;
    const v3 = x[a3 + k] as number;
    s00 += v0 * p;
    s01 += v0 * q;
    s10 += v1 * p;
    s11 += v1 * q;
    s20 += v2 * p;
    s21 += v2 * q;
    s30 += v3 * p;
    s31 += v3 * q;
  }
  const at = i * n + j;
  out.data.set([s00, s01], at);
  out.data.set([s10, s11], at + n);
  out.data.set([s20, s21], at + 2 * n);
  out.data.set([s30, s31], at + 3 * n);
}

/** Four partial sums, which the processor adds at the same time. */
export function innerProduct(a: Float64Array, i: number, b: Float64Array, j: number, length: number): number {
  let [s, t, u, v] = [0, 0, 0, 0];
  let k = 0;
  for (; k + 3 < length; k += 4) {
    s += (a[i + k] as number) * (b[j + k] as number);
    t += (a[i + k + 1] as number) * (b[j + k + 1] as number);
    u += (a[i + k + 2] as number) * (b[j + k + 2] as number);
    v += (a[i + k + 3] as number) * (b[j + k + 3] as number);
  }
  for (; k < length; k++) s += (a[i + k] as number) * (b[j + k] as number);
  return s + t + (u + v);
}

/**
 * Rows R with R^T R = S of a symmetric matrix that has no negative eigenvalues, as many as its rank: Cholesky's
 * factorisation with the greatest remaining diagonal first (LAPACK's dpstrf). What remains when the diagonal is n eps of
 * the greatest is rounding, and is left out.
 * @returns [rank, n]
 */
export async function choleskyRows(s: Matrix, options: PauseOptions = {}): Promise<Matrix> {
  const n = s.rows;
  const pause = pauses(options);
  const rest = Float64Array.from({ length: n }, (_, i) => s.data[i * n + i] as number);
  const least = n * Number.EPSILON * rest.reduce((a, b) => Math.max(a, b), 0);
  const rows: Float64Array[] = [];
  while (rows.length < n) {
    let pivot = 0;
    for (let i = 1; i < n; i++) if ((rest[i] as number) > (rest[pivot] as number)) pivot = i;
    const top = rest[pivot] as number;
    if (!(top > least)) break;
    const row = s.data.slice(pivot * n, (pivot + 1) * n);
    for (const before of rows) addScaled(row, -(before[pivot] as number), before, 0);
    const scale = 1 / Math.sqrt(top);
    for (let i = 0; i < n; i++) {
      const value = (row[i] as number) * scale;
      row[i] = value;
      rest[i] = (rest[i] as number) - value * value;
    }
    row[pivot] = Math.sqrt(top);
    rest[pivot] = Number.NEGATIVE_INFINITY; // done
    rows.push(row);
    await pause();
  }
  const factor = zeros(rows.length, n);
  for (const [i, row] of rows.entries()) factor.data.set(row, i * n);
  return factor;
}

/** x += a y, y from a place on. */
function addScaled(x: Float64Array, a: number, y: Float64Array, from: number): void {
  for (let i = 0; i < x.length; i++) x[i] = (x[i] as number) + a * (y[from + i] as number);
}

/**
 * The singular values of a matrix, in no order: Householder's bidiagonalisation (Golub and Kahan 1965), then those of the
 * bidiagonal as eigenvalues of a tridiagonal matrix. Errors are of the order of eps times the greatest.
 */
export async function singularValues(a: Matrix, options: PauseOptions = {}): Promise<Float64Array> {
  const { diagonal, above } = await bidiagonal(a.rows >= a.columns ? a : transposed(a), options);
  const n = diagonal.length;
  // Of [[0, B^T], [B, 0]], rows and columns in turns: zeros on the diagonal, d0 e0 d1 e1 ... beside it. Its eigenvalues
  // are the singular values and their negatives.
  const beside = Float64Array.from({ length: 2 * n - 1 }, (_, i) => (i % 2 === 0 ? diagonal : above)[i >> 1] as number);
  const values = tridiagonalEigenvalues(new Float64Array(2 * n), beside).sort();
  return values.slice(n).map((value) => Math.max(value, 0));
}

/** Columns as rows. */
export function transposed({ rows, columns, data }: Matrix): Matrix {
  const out = zeros(columns, rows);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) out.data[j * rows + i] = data[i * columns + j] as number;
  }
  return out;
}

/** Diagonal [n], and what is above it [n - 1], of U^T A V with orthogonal U and V; A is [m, n], m >= n. */
async function bidiagonal(
  { rows: m, columns: n, data }: Matrix,
  options: PauseOptions,
): Promise<{ diagonal: Float64Array; above: Float64Array }> {
  const a = data.slice();
  const pause = pauses(options);
  const diagonal = new Float64Array(n);
  const above = new Float64Array(Math.max(n - 1, 0));
  const sums = new Float64Array(n);
  const column = new Float64Array(m);
  for (let k = 0; k < n; k++) {
    // From the left: column k below row k becomes zero.
    for (let i = k; i < m; i++) column[i] = a[i * n + k] as number;
    const left = reflector(column, k, m);
    diagonal[k] = left.value;
    if (left.factor !== 0) {
      sums.fill(0, k + 1);
      for (let i = k; i < m; i++) addRow(sums, column[i] as number, a, i * n, k + 1, n);
      for (let i = k; i < m; i++) subtractRow(a, i * n, left.factor * (column[i] as number), sums, k + 1, n);
    }
    if (k + 1 >= n) break;
    // From the right: row k right of column k + 1 becomes zero.
    const row = a.slice(k * n, (k + 1) * n);
    const right = reflector(row, k + 1, n);
    above[k] = right.value;
    if (right.factor !== 0) {
      for (let i = k + 1; i < m; i++) {
        const along = innerProduct(a, i * n + k + 1, row, k + 1, n - k - 1);
        subtractRow(a, i * n, right.factor * along, row, k + 1, n);
      }
    }
    await pause();
  }
  return { diagonal, above };
}

/**
 * Makes x[from .. end) into the vector v of the reflection I - factor v v^T that takes it to (value, 0, ...).
 */
function reflector(x: Float64Array, from: number, end: number): { value: number; factor: number } {
  const first = x[from] as number;
  let scale = 0;
  for (let i = from; i < end; i++) scale = Math.max(scale, Math.abs(x[i] as number));
  let tail = 0;
  for (let i = from + 1; i < end; i++) tail += ((x[i] as number) / scale) ** 2;
  if (!(tail > 0)) return { value: first, factor: 0 };
  const norm = scale * Math.sqrt(tail + (first / scale) ** 2);
  const value = first > 0 ? -norm : norm;
  x[from] = first - value; // no cancellation
  return { value, factor: 1 / (norm * (norm + Math.abs(first))) };
}

function addRow(sums: Float64Array, by: number, a: Float64Array, row: number, from: number, end: number): void {
  for (let j = from; j < end; j++) sums[j] = (sums[j] as number) + by * (a[row + j] as number);
}

function subtractRow(a: Float64Array, row: number, by: number, x: Float64Array, from: number, end: number): void {
  for (let j = from; j < end; j++) a[row + j] = (a[row + j] as number) - by * (x[j] as number);
}

const MAX_SWEEPS = 60;

/**
 * Eigenvalues of a symmetric tridiagonal matrix, in no order: QL with implicit shifts (Martin, Wilkinson 1968).
 * @param diagonal [n], written over
 * @param beside [n - 1], written over
 */
function tridiagonalEigenvalues(diagonal: Float64Array, beside: Float64Array): Float64Array {
  const [d, n] = [diagonal, diagonal.length];
  const e = new Float64Array(n);
  e.set(beside);
  const norm = [...d, ...e].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  for (let l = 0; l < n; l++) {
    for (let sweep = 0; ; sweep++) {
      let m = l;
      while (m < n - 1 && !(Math.abs(e[m] as number) <= Number.EPSILON * norm)) m++;
      if (m === l) break;
      if (sweep === MAX_SWEEPS) throw new FemoError("E_RUNTIME", "eigenvalues: they do not converge. Are there NaNs?");
      sweepQl(d, e, l, m);
    }
  }
  return d;
}

/** One sweep over the block of rows l to m. */
function sweepQl(d: Float64Array, e: Float64Array, l: number, m: number): void {
  let g = ((d[l + 1] as number) - (d[l] as number)) / (2 * (e[l] as number));
  let r = Math.hypot(g, 1);
  g = (d[m] as number) - (d[l] as number) + (e[l] as number) / (g + (g >= 0 ? r : -r));
  let [s, c, p] = [1, 1, 0];
  for (let i = m - 1; i >= l; i--) {
    const f = s * (e[i] as number);
    const b = c * (e[i] as number);
    r = Math.hypot(f, g);
    e[i + 1] = r;
    if (r === 0) {
      d[i + 1] = (d[i + 1] as number) - p;
      e[m] = 0;
      return;
    }
    s = f / r;
    c = g / r;
    g = (d[i + 1] as number) - p;
    r = ((d[i] as number) - g) * s + 2 * c * b;
    p = s * r;
    d[i + 1] = g + p;
    g = c * r - b;
  }
  d[l] = (d[l] as number) - p;
  e[l] = g;
  e[m] = 0;
}
