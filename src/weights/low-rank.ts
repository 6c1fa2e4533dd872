/** A product that is added to a matrix: scale · up · down, up being some rows of a larger matrix. */
export interface LowRank {
  readonly scale: number;
  /** [any, rank], row-major. */
  readonly up: Float32Array;
  /** [rank, columns], row-major. */
  readonly down: Float32Array;
  readonly rank: number;
  /** The row of `up` that belongs to a row of the matrix. */
  readonly rowOf: (row: number) => number;
}

/** Columns that are worked on at once: those of all ranks stay in the processor's cache. */
const TILE = 512;
/** Ranks that are added at once. */
const STRIDE = 4;

/**
 * Adds products of low rank to a matrix, in place. Products and sums are in float64, and each element is rounded to
 * float32 once, however many products there are.
 * @param values [rows, columns], row-major
 */
export function addLowRank(values: Float32Array, columns: number, products: readonly LowRank[]): void {
  const rows = columns === 0 ? 0 : values.length / columns;
  // Several products are one of all their ranks together; ranks that fill up the last stride are zero.
  const rank = STRIDE * Math.ceil(products.reduce((sum, product) => sum + product.rank, 0) / STRIDE);
  const up = stackedUps(products, rows, rank);
  for (let start = 0; start < columns; start += TILE) {
    const width = Math.min(TILE, columns - start);
    const down = stackedDowns(products, rank, columns, start, width);
    addTile(values, columns, start, up, down, width, rank);
  }
}

/** [rows, rank] */
function stackedUps(products: readonly LowRank[], rows: number, rank: number): Float64Array {
  const stacked = new Float64Array(rows * rank);
  let offset = 0;
  for (const product of products) {
    for (let row = 0; row < rows; row++) {
      const from = product.rowOf(row) * product.rank;
      const to = row * rank + offset;
      for (let k = 0; k < product.rank; k++) stacked[to + k] = product.scale * (product.up[from + k] as number);
    }
    offset += product.rank;
  }
  return stacked;
}

/** Columns [start, start + width) of all downs.  [rank, width] */
function stackedDowns(
  products: readonly LowRank[],
  rank: number,
  columns: number,
  start: number,
  width: number,
): Float64Array {
  const stacked = new Float64Array(rank * width);
  let to = 0;
  for (const product of products) {
    for (let k = 0; k < product.rank; k++, to += width) {
      const from = k * columns + start;
      stacked.set(product.down.subarray(from, from + width), to);
    }
  }
  return stacked;
}

/** Two rows and four ranks at a time: what is loaded of `down` serves both rows. */
function addTile(
  values: Float32Array,
  columns: number,
  start: number,
  up: Float64Array,
  down: Float64Array,
  width: number,
  rank: number,
): void {
  const rows = values.length / columns;
  const [a, b] = [new Float64Array(width), new Float64Array(width)];
  for (let row = 0; row < rows; row += 2) {
    const other = Math.min(row + 1, rows - 1); // the last row of an odd number is its own partner
    const rowOfA = values.subarray(row * columns + start, row * columns + start + width);
    const rowOfB = values.subarray(other * columns + start, other * columns + start + width);
    a.set(rowOfA);
    b.set(rowOfB);
    for (let k = 0; k < rank; k += STRIDE) {
      const [u, v, d0] = [row * rank + k, other * rank + k, k * width];
      const [d1, d2, d3] = [d0 + width, d0 + 2 * width, d0 + 3 * width];
      const [a0, a1, a2, a3] = [up[u], up[u + 1], up[u + 2], up[u + 3]] as Four;
      const [b0, b1, b2, b3] = [up[v], up[v + 1], up[v + 2], up[v + 3]] as Four;
      for (let j = 0; j < width; j++) {
        const w = down[d0 + j] as number;
        const x = down[d1 + j] as number;
        const y = down[d2 + j] as number;
        const z = down[d3 + j] as number;
        a[j] = (a[j] as number) + a0 * w + a1 * x + a2 * y + a3 * z;
        b[j] = (b[j] as number) + b0 * w + b1 * x + b2 * y + b3 * z;
      }
    }
    rowOfA.set(a);
    rowOfB.set(b);
  }
}

type Four = [number, number, number, number];
