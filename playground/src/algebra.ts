/** What the network said at a step. */
export interface Output {
  readonly step: number;
  readonly full: boolean;
  readonly data: Float32Array;
}

const dot = (a: Float32Array, b: Float32Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
};

/** |a - b| / |b| */
export function relativeError(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] as number) - (b[i] as number)) ** 2;
  return Math.sqrt(sum / dot(b, b));
}

/** Two directions and a centre: points of a high-dimensional path in the plane in which it varies most. */
export interface Plane {
  readonly mean: Float32Array;
  readonly axes: readonly [Float32Array, Float32Array];
  /** How much of the variance is in the plane, 0 to 1. */
  readonly share: number;
}

/** The first two principal components, by power iteration on the inner products of the points. */
export function principalPlane(points: readonly Float32Array[]): Plane | undefined {
  const [first] = points;
  if (!first || points.length < 3) return undefined;
  const mean = new Float32Array(first.length);
  for (const point of points)
    for (let i = 0; i < mean.length; i++) mean[i] = (mean[i] as number) + (point[i] as number) / points.length;
  const centred = points.map((point) => point.map((x, i) => x - (mean[i] as number)));
  const gram = centred.map((a) => centred.map((b) => dot(a, b)));
  const total = gram.reduce((sum, row, i) => sum + (row[i] as number), 0);
  const axes: Float32Array[] = [];
  let explained = 0;
  for (let axis = 0; axis < 2; axis++) {
    let weights = points.map((_, i) => Math.cos(1 + i * (axis + 1)));
    let value = 0;
    for (let round = 0; round < 300; round++) {
      const next = gram.map((row) => row.reduce((sum, x, i) => sum + x * (weights[i] as number), 0));
      value = Math.hypot(...next);
      if (!(value > 0)) return undefined;
      weights = next.map((x) => x / value);
    }
    for (const [i, row] of gram.entries()) {
      for (const j of row.keys()) row[j] = (row[j] as number) - value * (weights[i] as number) * (weights[j] as number);
    }
    const direction = new Float32Array(mean.length);
    for (const [i, point] of centred.entries()) {
      const weight = (weights[i] as number) / Math.sqrt(value);
      for (let j = 0; j < direction.length; j++)
        direction[j] = (direction[j] as number) + weight * (point[j] as number);
    }
    axes.push(direction);
    explained += value;
  }
  return { mean, axes: axes as [Float32Array, Float32Array], share: explained / total };
}

export const project = ({ mean, axes }: Plane, point: Float32Array): [number, number] => {
  const [a, b] = axes;
  let [x, y] = [0, 0];
  for (let i = 0; i < point.length; i++) {
    const d = (point[i] as number) - (mean[i] as number);
    x += d * (a[i] as number);
    y += d * (b[i] as number);
  }
  return [x, y];
};
