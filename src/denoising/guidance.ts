/** One run of the network for an image: under which condition, and how much its output counts. */
export interface GuidanceRow<Condition = number> {
  /** While denoising: its row among the request's conditions. */
  readonly condition: Condition;
  readonly weight: number;
}

/**
 * Rows of classifier-free guidance, e = scale e1 + (1 - scale) e0: with the condition first, then without. At a scale of
 * 1 or less there is nothing to guide, and one row.
 */
export const guidanceRows = <C>(scale: number, condition: C, without: C): readonly GuidanceRow<C>[] =>
  scale > 1
    ? [
        { condition, weight: scale },
        { condition: without, weight: 1 - scale },
      ]
    : [{ condition, weight: 1 }];

/**
 * What the rows of an image add up to: the weighted sum of their outputs on the guided channels, and on the others the
 * first row's, the one with the condition. Channels beyond the sample's, a learned variance, are dropped.
 * @param outputs of each row, [C', ...]
 * @param size elements of the sample, [C, ...]
 * @param guided how many of these, from the first on, are guided
 * @param rescale how much of the spread that guidance adds is taken back (Lin et al., arXiv 2305.08891, equation 15): 0 nothing,
 *   1 all of it
 */
export function guide(
  rows: readonly GuidanceRow[],
  outputs: readonly Float32Array[],
  size: number,
  guided: number,
  rescale = 0,
): Float32Array {
  const [first] = outputs as [Float32Array];
  if (rows.length === 1) return first.slice(0, size);
  const out = first.slice(0, size);
  for (let i = 0; i < guided; i++) {
    let sum = 0;
    for (let row = 0; row < rows.length; row++) {
      sum += (rows[row]?.weight as number) * ((outputs[row] as Float32Array)[i] as number);
    }
    out[i] = sum;
  }
  if (rescale === 0) return out;
  const factor = rescale * (deviation(first, size) / deviation(out, size)) + 1 - rescale;
  return out.map((x) => factor * x);
}

/** Standard deviation of the first elements; a ratio of two does not depend on whether it is that of a sample. */
function deviation(values: Float32Array, size: number): number {
  let mean = 0;
  for (let i = 0; i < size; i++) mean += (values[i] as number) / size;
  let squares = 0;
  for (let i = 0; i < size; i++) squares += ((values[i] as number) - mean) ** 2;
  return Math.sqrt(squares / size);
}
