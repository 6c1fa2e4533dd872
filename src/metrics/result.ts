import type { WeightHashes } from "./metric-networks.js";

/** What a metric says, with all that is needed to compare it with another's. */
export interface MetricResult {
  /** With its convention: "fid:pytorch", "lpips:alex", "ssim:uniform7". */
  readonly metric: string;
  readonly value: number;
  /** Images, or pairs of images. */
  readonly count: number;
  /** Standard error of the mean, where there is a value for each image. */
  readonly standardError?: number | undefined;
  /** Of each image, or pair, by the file's name. */
  readonly perImage?: readonly { readonly name: string; readonly value: number }[] | undefined;
  /** SHA-256 of the weights, by file; none of metrics without a network. */
  readonly weights?: WeightHashes | undefined;
  /** What else the metric says, such as the parts of a distance. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  /** What should be known before it is compared. */
  readonly notes?: readonly string[] | undefined;
}

/** A mean over images. Values that are not finite, such as the PSNR of equal images, are left out and counted. */
export function meanResult(
  metric: string,
  names: readonly string[],
  values: readonly number[],
  rest: Pick<MetricResult, "weights" | "details" | "notes"> = {},
): MetricResult {
  const finite = values.filter(Number.isFinite);
  const n = finite.length;
  const value = n === 0 ? (values[0] ?? Number.NaN) : finite.reduce((sum, x) => sum + x, 0) / n;
  const variance = finite.reduce((sum, x) => sum + (x - value) ** 2, 0) / (n - 1);
  const equal = values.length - n;
  const notes = [...(rest.notes ?? []), ...(equal > 0 ? [`${equal} pairs are equal and left out of the mean`] : [])];
  return {
    metric,
    value,
    count: values.length,
    ...(n > 1 && { standardError: Math.sqrt(variance / n) }),
    perImage: names.map((name, i) => ({ name, value: values[i] as number })),
    ...rest,
    ...(notes.length > 0 && { notes }),
  };
}
