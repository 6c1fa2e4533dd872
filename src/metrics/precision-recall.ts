import { FemoError } from "../errors.js";
import { featureMatrix } from "./kernel-distance.js";
import { innerProduct, type Matrix, type PauseOptions, pauses } from "./matrix.js";

/** How good, and how varied. */
export interface PrecisionRecall {
  /** Share of the generated images that lie in the neighbourhood of a reference image: how good they are. */
  readonly precision: number;
  /** Share of the reference images that lie in the neighbourhood of a generated image: how varied those are. */
  readonly recall: number;
  readonly neighbours: number;
}

/**
 * Improved precision and recall (Kynkaanniemi et al., arXiv 1904.06991): the neighbourhood of an image is a ball as far as
 * its k-th nearest other image of its own set. Distances are float64's; ADM's evaluator takes float16's where it can, which
 * has other ties.
 * @param k Default: 3
 * @throws FemoError E_OPTION if a set has not more than k images, or features differ in length
 */
export async function precisionRecall(
  reference: readonly ArrayLike<number>[],
  generated: readonly ArrayLike<number>[],
  { k = 3, ...options }: PauseOptions & { readonly k?: number | undefined } = {},
): Promise<PrecisionRecall> {
  const least = Math.min(reference.length, generated.length);
  if (!(Number.isInteger(k) && k >= 1 && k < least)) {
    throw new FemoError("E_OPTION", `precision and recall: expected 1 to ${least - 1} neighbours, found ${k}`);
  }
  const [r, g] = [featureMatrix(reference), featureMatrix(generated)];
  if (r.columns !== g.columns) {
    throw new FemoError("E_OPTION", `precision and recall: features of ${r.columns} and ${g.columns} do not fit`);
  }
  const [radiiR, radiiG] = [await radii(r, k, options), await radii(g, k, options)];
  const [normsR, normsG] = [squares(r), squares(g)];
  const inReference = new Uint8Array(g.rows);
  const inGenerated = new Uint8Array(r.rows);
  const pause = pauses(options);
  for (let i = 0; i < r.rows; i++) {
    for (let j = 0; j < g.rows; j++) {
      const distance = squaredDistance(r, normsR, i, g, normsG, j);
      if (distance <= (radiiR[i] as number)) inReference[j] = 1;
      if (distance <= (radiiG[j] as number)) inGenerated[i] = 1;
    }
    await pause();
  }
  const share = (inside: Uint8Array): number => inside.reduce((sum, one) => sum + one, 0) / inside.length;
  return { precision: share(inReference), recall: share(inGenerated), neighbours: k };
}

const squares = ({ rows, columns, data }: Matrix): Float64Array =>
  Float64Array.from({ length: rows }, (_, i) => innerProduct(data, i * columns, data, i * columns, columns));

const squaredDistance = (a: Matrix, normsA: Float64Array, i: number, b: Matrix, normsB: Float64Array, j: number) =>
  (normsA[i] as number) +
  (normsB[j] as number) -
  2 * innerProduct(a.data, i * a.columns, b.data, j * b.columns, a.columns);

/** Squared distances to the k-th nearest other row. */
async function radii(x: Matrix, k: number, options: PauseOptions): Promise<Float64Array> {
  const norms = squares(x);
  const out = new Float64Array(x.rows);
  const pause = pauses(options);
  for (let i = 0; i < x.rows; i++) {
    const nearest = new Float64Array(k).fill(Number.POSITIVE_INFINITY); // in order
    for (let j = 0; j < x.rows; j++) {
      if (j === i) continue;
      const distance = squaredDistance(x, norms, i, x, norms, j);
      if (distance >= (nearest[k - 1] as number)) continue;
      let at = k - 1;
      for (; at > 0 && (nearest[at - 1] as number) > distance; at--) nearest[at] = nearest[at - 1] as number;
      nearest[at] = distance;
    }
    out[i] = nearest[k - 1] as number;
    await pause();
  }
  return out;
}
