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
