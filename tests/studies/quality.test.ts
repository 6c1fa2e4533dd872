import { expect, test } from "vitest";
import { qualityOf } from "../../src/studies/index.js";
import { qualityText } from "../../src/studies/table.js";

test("quantiles lie between values as in NumPy, whatever their order", () => {
  // np.quantile([31, 24, 50, 20], [0.5, 0.1])
  const quality = qualityOf([31, 24, 50, 20]);
  expect(quality.mean).toBe(31.25);
  expect(quality.median).toBeCloseTo(27.5, 12);
  expect(quality.tenthPercentile).toBeCloseTo(21.2, 12);
  expect(qualityOf(Array.from({ length: 11 }, (_, i) => 10 - i)).tenthPercentile).toBeCloseTo(1, 12);
});

test("one image is its own mean and quantiles, and has no error", () => {
  expect(qualityOf([7])).toEqual({ mean: 7, median: 7, tenthPercentile: 7, standardError: undefined, values: [7] });
});

test("an identical image among others does not make them identical", () => {
  const some = qualityOf([30, Number.POSITIVE_INFINITY, 20, 25]);
  expect(some).toMatchObject({ mean: Number.POSITIVE_INFINITY, median: 27.5, standardError: undefined });
  expect(qualityText(some, 1)).toBe("∞, 27.5, 21.5");
  const all = qualityOf([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
  expect(all.tenthPercentile).toBe(Number.POSITIVE_INFINITY);
  expect(qualityText(all, 1)).toBe("identical");
});
