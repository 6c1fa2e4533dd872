/** Two coordinates in a plane. */
export interface PlanePoint {
  readonly x: number;
  readonly y: number;
}

/** The plane in which points vary most, known by their inner products alone. */
export interface PrincipalPlane {
  /** The points, as they lie in it. The last is to the right of the first, and above it. */
  readonly points: readonly PlanePoint[];
  /** What share of their variance each axis has, 0 to 1, the larger first. */
  readonly shares: readonly [number, number];
  /** The axes as weights over the points, from their mean. */
  readonly axes: readonly [readonly number[], readonly number[]];
  /** Where a weighted sum of the points lies. */
  project(weights: readonly number[]): PlanePoint;
}

/**
 * The first two principal components of points, in float64, by their Gram matrix: with the mean taken out of it, it has
 * the eigenvalues of their scatter, and its eigenvectors say where the points lie.
 * @param gram inner products, [points, points]
 */
export function planeOfGram(gram: readonly (readonly number[])[]): PrincipalPlane {
  const means = gram.map((row) => sum(row) / row.length); // inner products of each point and the mean
  const mean = sum(means) / means.length;
  const centred = gram.map((row, i) => row.map((x, j) => x - (means[i] as number) - (means[j] as number) + mean));
  const { values, vectors } = symmetricEigen(centred);
  const total = sum(centred.map((row, i) => row[i] as number));
  const rounding = ROUNDING * sum(gram.map((row, i) => row[i] as number));
  const order = [...values.keys()].sort((a, b) => (values[b] as number) - (values[a] as number));
  const component = (rank: number): Component => {
    const column = order[rank] as number;
    const [value, vector] = [values[column] ?? 0, vectors.map((row) => row[column] ?? 0)];
    const sign = (vector.at(-1) as number) < (vector[0] as number) ? -1 : 1;
    // An axis without variance has no direction.
    const axis = vector.map((v) => (value > rounding ? (sign * v) / Math.sqrt(value) : 0));
    return {
      share: total > 0 ? Math.max(0, value) / total : 0,
      axis,
      along: axis.map((v) => v * value),
      ofMean: sum(axis.map((v, i) => v * (means[i] as number))),
    };
  };
  const [first, second] = [component(0), component(1)];
  return {
    points: first.along.map((x, i) => ({ x, y: second.along[i] as number })),
    shares: [first.share, second.share],
    axes: [first.axis, second.axis],
    project(weights) {
      const beyond = sum(weights) - 1; // of the mean, where weights do not sum to 1
      const at = ({ along, ofMean }: Component): number =>
        beyond * ofMean + sum(weights.map((w, i) => w * (along[i] as number)));
      return { x: at(first), y: at(second) };
    },
  };
}

interface Component {
  readonly share: number;
  readonly axis: readonly number[];
  readonly along: readonly number[];
  readonly ofMean: number;
}

/** Of the points' squared lengths: variance below it is rounding. */
const ROUNDING = 1e-14;

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Two directions and a centre, in the space of the points. */
export interface Plane {
  readonly mean: Float64Array;
  readonly axes: readonly [Float64Array, Float64Array];
  /** How much of the variance is in the plane, 0 to 1. */
  readonly share: number;
}

/** `planeOfGram` of points that are there, at least one, all of one length: for others to be projected into it. */
export function principalPlane(points: readonly ArrayLike<number>[]): Plane {
  const size = points[0]?.length ?? 0;
  const weighted = (weights: readonly number[], from?: Float64Array): Float64Array => {
    const out = new Float64Array(size);
    for (const [p, point] of points.entries()) {
      const w = weights[p] as number;
      for (let i = 0; i < size; i++) out[i] = (out[i] as number) + w * ((point[i] as number) - (from?.[i] ?? 0));
    }
    return out;
  };
  const mean = weighted(points.map(() => 1 / points.length));
  const centred = points.map((point) => mean.map((m, i) => (point[i] as number) - m));
  const { axes, shares } = planeOfGram(centred.map((a) => centred.map((b) => dot(a, b))));
  return { mean, axes: [weighted(axes[0], mean), weighted(axes[1], mean)], share: shares[0] + shares[1] };
}

/** Where a point of that space lies in the plane. */
export function project({ mean, axes }: Plane, point: ArrayLike<number>): PlanePoint {
  const offset = mean.map((m, i) => (point[i] as number) - m);
  return { x: dot(offset, axes[0]), y: dot(offset, axes[1]) };
}

function dot(a: Float64Array, b: Float64Array): number {
  let product = 0;
  for (let i = 0; i < a.length; i++) product += (a[i] as number) * (b[i] as number);
  return product;
}

const MAX_SWEEPS = 60;

/**
 * Eigenvalues and eigenvectors, the latter in columns, of a symmetric matrix by Jacobi's rotations.
 * @returns in no order
 */
function symmetricEigen(matrix: readonly (readonly number[])[]): { values: number[]; vectors: number[][] } {
  const a = matrix.map((row) => [...row]);
  const n = a.length;
  const vectors = a.map((_, i) => a.map((_, j) => (i === j ? 1 : 0)));
  const size = Math.sqrt(sum(a.flat().map((x) => x * x)));
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = 0; q < p; q++) off = Math.max(off, Math.abs(a[p]?.[q] as number));
    if (off <= Number.EPSILON * size) break;
    for (let p = 0; p < n; p++) for (let q = 0; q < p; q++) rotate(a, vectors, p, q);
  }
  return { values: a.map((row, i) => row[i] as number), vectors };
}

/** Turns the axes p and q until their product is gone. */
function rotate(a: number[][], vectors: number[][], p: number, q: number): void {
  const [rowP, rowQ] = [a[p] as number[], a[q] as number[]];
  if (rowP[q] === 0) return;
  const theta = ((rowQ[q] as number) - (rowP[p] as number)) / (2 * (rowP[q] as number));
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const s = t * c;
  for (const row of [...a, ...vectors]) {
    const [x, y] = [row[p] as number, row[q] as number];
    row[p] = c * x - s * y;
    row[q] = s * x + c * y;
  }
  for (let j = 0; j < rowP.length; j++) {
    const [x, y] = [rowP[j] as number, rowQ[j] as number];
    rowP[j] = c * x - s * y;
    rowQ[j] = s * x + c * y;
  }
}
