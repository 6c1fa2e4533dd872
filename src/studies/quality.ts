/** A measure of likeness, over images. */
export interface Quality {
  readonly mean: number;
  readonly median: number;
  /** Between the values where it falls between two, as NumPy's. A mean hides that a few images may be far off. */
  readonly tenthPercentile: number;
  /** Standard error of the mean; undefined with fewer than two images, or if a value is infinite. */
  readonly standardError: number | undefined;
  /** One for each image. */
  readonly values: readonly number[];
}

/** What values say of images as a whole. @param values one for each image, at least one; Infinity for identical images */
export function qualityOf(values: readonly number[]): Quality {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1);
  const standardError = Math.sqrt(variance / values.length);
  return {
    mean,
    median: quantile(values, 0.5),
    tenthPercentile: quantile(values, 0.1),
    standardError: Number.isFinite(standardError) ? standardError : undefined,
    values,
  };
}

/** Between the values where it falls between two, as NumPy's. @param share 0 to 1 */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)] as number, sorted[Math.ceil(at)] as number];
  return low === high ? low : low + (high - low) * (at - Math.floor(at));
}
