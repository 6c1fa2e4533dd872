import { FemoError } from "../errors.js";
import { eigenvaluesOf, extrapolateFrechet, frechetBias, frechetCounts, frechetDistance } from "./frechet.js";
import type { PauseOptions } from "./matrix.js";
import type { WeightHashes } from "./metric-networks.js";
import { fitFeatures, type GaussianFit } from "./moments.js";
import type { MetricResult } from "./result.js";
import { SubsetDrawer } from "./subsets.js";

/** What a result is called, and what else is computed. */
export interface FidOptions extends PauseOptions {
  /** "fid:pytorch", "sfid:tf" */
  readonly metric: string;
  readonly weights: WeightHashes;
  /** Also the value at infinitely many images, of random subsets from 5000 images on. Default: no. */
  readonly infinity?: boolean | undefined;
  /** Which subsets. Default: 0. */
  readonly seed?: number | undefined;
  /** Of the value at infinity. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** The least images of which a value at infinity is made. */
const LEAST_AT_INFINITY = 5000;

/**
 * FID of features of generated images to those of a reference, or to its moments, with what is needed to judge it.
 * @throws FemoError E_OPTION if a set has less than two images, the features do not fit, or there are too few images for a
 *   value at infinity; the signal's reason
 */
export async function fidResult(
  generated: readonly Float32Array[],
  reference: readonly Float32Array[] | GaussianFit,
  options: FidOptions,
): Promise<MetricResult> {
  const { metric, weights, signal } = options;
  const fit = await fitFeatures(generated, { signal });
  const other = "mean" in reference ? reference : await fitFeatures(reference, { signal });
  const { value, means, traces, overlap } = await frechetDistance(fit, other, { signal });
  const width = fit.mean.length;
  const notes: string[] = [];
  const counts = { generated: generated.length, reference: other.count };
  const few = [counts.generated, counts.reference].filter((n) => n !== undefined && n <= width);
  if (few.length > 0) {
    notes.push(
      `${Math.min(...(few as number[]))} images make a covariance of rank ${Math.min(...(few as number[])) - 1} of ${width}: ` +
        "compare only with values of as many images, against the same reference",
    );
  }
  const bias = few.length === 0 ? await expectedBias(fit, other, signal) : undefined;
  const infinity = options.infinity ? await atInfinity(generated, other, options) : undefined;
  return {
    metric,
    value,
    count: generated.length,
    weights,
    details: {
      ...{ counts, means, traces, overlap, rank: [rankOf(fit), rankOf(other)] },
      ...(bias !== undefined && { bias }),
      ...(infinity && { infinity }),
    },
    ...(notes.length > 0 && { notes }),
  };
}

/** Centred features are one more than their rank. */
const rankOf = ({ root, count = Number.POSITIVE_INFINITY }: GaussianFit): number => Math.min(root.rows, count - 1);

/** What the numbers of images alone make of the distance, to first order, where both sets are of one Gaussian. */
async function expectedBias(fit: GaussianFit, other: GaussianFit, signal?: AbortSignal): Promise<number> {
  const eigenvalues = await eigenvaluesOf(fit, { signal });
  const counts = [fit.count, other.count].filter((count) => count !== undefined);
  return counts.reduce((sum, count) => sum + frechetBias(eigenvalues, count), 0);
}

async function atInfinity(generated: readonly Float32Array[], other: GaussianFit, options: FidOptions) {
  const { signal, seed = 0, onProgress } = options;
  if (generated.length <= LEAST_AT_INFINITY) {
    throw new FemoError(
      "E_OPTION",
      `infinity: expected more than ${LEAST_AT_INFINITY} generated images, found ${generated.length}`,
    );
  }
  const drawer = new SubsetDrawer(seed);
  const counts = frechetCounts(generated.length, { least: LEAST_AT_INFINITY });
  const points: { count: number; value: number }[] = [];
  for (const count of counts) {
    const chosen = Array.from(drawer.draw(generated.length, count), (i) => generated[i] as Float32Array);
    const { value } = await frechetDistance(await fitFeatures(chosen, { signal }), other, { signal });
    points.push({ count, value });
    onProgress?.(points.length, counts.length);
  }
  return extrapolateFrechet(points);
}
