import { describe, expect, test } from "vitest";
import {
  eigenvaluesOf,
  extrapolateFrechet,
  frechetBias,
  frechetCounts,
  frechetDistance,
} from "../../src/metrics/frechet.js";
import { kernelDistance } from "../../src/metrics/kernel-distance.js";
import { choleskyRows, type Matrix, singularValues, timesTransposed } from "../../src/metrics/matrix.js";
import { fitFeatures, fitMoments, MomentSums } from "../../src/metrics/moments.js";
import { precisionRecall } from "../../src/metrics/precision-recall.js";
import { SubsetDrawer } from "../../src/metrics/subsets.js";
import { femoError } from "../weights/helpers.js";
import { hashed } from "./hash-weights.js";

/** t + s (Z M + .3 Z), hashed by name: features that hang together. */
function features(n: number, d: number, name: string, t: number, s: number): Float64Array[] {
  const [z, m] = [hashed(name, n * d), hashed(`${name}.mix`, d * d).map((x) => x / Math.sqrt(d))];
  return Array.from({ length: n }, (_, i) =>
    Float64Array.from({ length: d }, (_, j) => {
      let sum = 0.3 * (z[i * d + j] as number);
      for (let k = 0; k < d; k++) sum += (z[i * d + k] as number) * (m[k * d + j] as number);
      return t + s * sum;
    }),
  );
}

const total = (rows: readonly Float64Array[]): number =>
  rows.reduce((sum, row) => sum + row.reduce((a, b) => a + b, 0), 0);
const [A, B] = [features(200, 16, "A", 0, 1), features(150, 16, "B", 0.1, 1.2)];

function sumsOf(rows: readonly ArrayLike<number>[], shift: ArrayLike<number> = rows[0] as ArrayLike<number>) {
  const sums = new MomentSums(shift);
  for (const row of rows) sums.add(row);
  return sums;
}

test("the features are the reference's", () => {
  expect(A[0]?.[0]).toBeCloseTo(-0.16696, 6);
  expect(total(A)).toBeCloseTo(-18.873807, 6);
  expect(B[0]?.[0]).toBeCloseTo(0.54335, 6);
  expect(total(B)).toBeCloseTo(235.833263, 5);
});

describe("the Frechet distance", () => {
  test("equals SciPy's, of features and of moments", async () => {
    const [a, b] = [await fitFeatures(A), await fitFeatures(B)];
    expect((await frechetDistance(a, b)).value).toBeCloseTo(1.406169, 7);
    const moments = await fitMoments(sumsOf(B).moments());
    expect((await frechetDistance(a, moments)).value).toBeCloseTo(1.406169, 7);
    expect((await frechetDistance(moments, a)).value).toBeCloseTo(1.406169, 7);
  });

  test("of fewer features than they are long, where the covariance is singular", async () => {
    const [few, other] = [features(20, 64, "A", 0, 1), features(24, 64, "B", 0.1, 1.2)];
    const [a, b] = [await fitFeatures(few), await fitFeatures(other)];
    expect((await frechetDistance(a, b)).value).toBeCloseTo(14.674716, 5);
    const moments = await fitMoments(sumsOf(other).moments());
    expect(moments.root.rows).toBe(23);
    expect((await frechetDistance(a, moments)).value).toBeCloseTo((await frechetDistance(a, b)).value, 6);
  });

  test("of a set and itself is 0, whatever its rank", async () => {
    for (const rows of [A, features(9, 40, "C", 3, 2), [A[0], A[0], A[0]] as Float64Array[]]) {
      const fit = await fitFeatures(rows);
      expect((await frechetDistance(fit, fit)).value).toBeLessThan(1e-10 * (1 + fit.trace));
    }
  });

  test("of diagonal covariances has a closed form", async () => {
    const diagonal = (values: number[]): Matrix => ({
      rows: values.length,
      columns: values.length,
      data: Float64Array.from({ length: values.length ** 2 }, (_, i) =>
        i % (values.length + 1) === 0 ? (values[i / (values.length + 1)] as number) : 0,
      ),
    });
    const gaussian = (mean: number[], variances: number[]) =>
      fitMoments({ count: undefined, mean: Float64Array.from(mean), covariance: diagonal(variances) });
    const found = await frechetDistance(await gaussian([0, 1, 2], [4, 9, 0]), await gaussian([1, 1, 0], [1, 0, 0]));
    expect(found.value).toBeCloseTo(5 + 14 - 2 * 2, 12);
    expect(found).toMatchObject({ means: 5, traces: [13, 1] });
  });

  test("features and moments that do not fit are refused", async () => {
    const fit = await fitFeatures(A);
    const short = await fitFeatures(A.map((row) => row.slice(0, 3)));
    expect(await femoError("E_OPTION", () => frechetDistance(fit, short))).toContain("16 and 3");
    expect(await femoError("E_OPTION", () => fitFeatures(A.slice(0, 1)))).toContain("two images");
    expect(await femoError("E_OPTION", () => fitFeatures([[1, 2], [1]]))).toContain("one length");
    const nan = {
      count: 2,
      mean: Float64Array.of(Number.NaN),
      covariance: { rows: 1, columns: 1, data: Float64Array.of(1) },
    };
    expect(await femoError("E_OPTION", () => fitMoments(nan))).toContain("finite");
  });

  test("its bias is the expansion's, of a Gaussian without structure", async () => {
    const ones = new Float64Array(64).fill(1);
    expect(frechetBias(ones, 4096)).toBeCloseTo((64 ** 2 + 5 * 64) / (4 * 4096), 12);
    const eigenvalues = await eigenvaluesOf(await fitFeatures(A));
    const { trace } = await fitFeatures(A);
    expect(eigenvalues.reduce((a, b) => a + b, 0)).toBeCloseTo(trace, 10);
  });

  test("at infinity it is where the line ends", () => {
    expect(frechetCounts(50_000)).toHaveLength(15);
    expect([frechetCounts(50_000)[0], frechetCounts(50_000)[14]]).toEqual([5000, 50_000]);
    const points = frechetCounts(50_000).map((count) => ({ count, value: 3.25 + 900 / count }));
    const line = extrapolateFrechet(points);
    expect(line.value).toBeCloseTo(3.25, 10);
    expect(line.slope).toBeCloseTo(900, 6);
  });

  test("can be stopped", async () => {
    const reason = new Error("enough");
    const big: Matrix = { rows: 700, columns: 700, data: hashed("big", 700 * 700) };
    await expect(singularValues(big, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});

describe("moments", () => {
  const wanted = sumsOf(A).moments();

  test("do not depend on the shift, nor on how the images were dealt out", () => {
    const shift = A[7] as Float64Array;
    const [first, second] = [sumsOf(A.slice(0, 60), shift), sumsOf(A.slice(60), shift)];
    first.merge(second);
    const found = first.moments();
    expect(found.count).toBe(200);
    for (const [i, x] of found.mean.entries()) expect(x).toBeCloseTo(wanted.mean[i] as number, 12);
    for (const [i, x] of found.covariance.data.entries())
      expect(x).toBeCloseTo(wanted.covariance.data[i] as number, 12);
  });

  test("far from zero lose nothing", () => {
    const far = A.map((row) => row.map((x) => x + 1e6));
    const { covariance } = sumsOf(far).moments();
    for (const [i, x] of covariance.data.entries()) expect(x).toBeCloseTo(wanted.covariance.data[i] as number, 8);
  });

  test("shards of other shifts, and features of other lengths, are refused", async () => {
    expect(await femoError("E_OPTION", () => sumsOf(A).merge(sumsOf(B)))).toContain("same shift");
    expect(await femoError("E_OPTION", () => sumsOf(A).add([1]))).toContain("length 16, found 1");
    expect(await femoError("E_OPTION", () => sumsOf(A.slice(0, 1)).moments())).toContain("found 1");
  });
});

describe("matrices", () => {
  const matrix = (rows: number, columns: number, name: string): Matrix => ({
    rows,
    columns,
    data: hashed(name, rows * columns),
  });

  test.each([
    [1, 1],
    [5, 5],
    [30, 7],
    [7, 30],
    [64, 64],
  ])(
    "singular values of %ix%i: their squares sum up to the squares of the entries, and they are those of U A V",
    async (rows, columns) => {
      const a = matrix(rows, columns, "a");
      const values = await singularValues(a);
      expect(values).toHaveLength(Math.min(rows, columns));
      const squares = a.data.reduce((sum, x) => sum + x * x, 0);
      expect(values.reduce((sum, x) => sum + x * x, 0)).toBeCloseTo(squares, 9);
      const gram = await timesTransposed(a, a);
      let fourth = 0;
      for (const x of gram.data) fourth += x * x;
      expect(values.reduce((sum, x) => sum + x ** 4, 0) / fourth).toBeCloseTo(1, 11);
    },
  );

  test("singular values of what is known: 3, 2 and twice 0", async () => {
    const [u, v] = [hashed("u", 6), hashed("v", 4)].map((x) => x.map((y) => y / Math.hypot(...x))) as [
      Float64Array,
      Float64Array,
    ];
    const data = Float64Array.from(
      { length: 24 },
      (_, i) => 3 * (u[Math.floor(i / 4)] as number) * (v[i % 4] as number),
    );
    const values = (await singularValues({ rows: 6, columns: 4, data })).sort();
    expect(values[3]).toBeCloseTo(3, 14);
    for (const x of values.slice(0, 3)) expect(x).toBeLessThan(1e-14);
    expect([...(await singularValues({ rows: 3, columns: 2, data: new Float64Array(6) }))]).toEqual([0, 0]);
  });

  test("rows R with R^T R = S, as many as the rank", async () => {
    const a = matrix(12, 5, "b");
    const s = await timesTransposed(a, a); // [12, 12] of rank 5
    const r = await choleskyRows(s);
    expect([r.rows, r.columns]).toEqual([5, 12]);
    const turned: Matrix = {
      rows: 12,
      columns: 5,
      data: Float64Array.from({ length: 60 }, (_, i) => r.data[(i % 5) * 12 + Math.floor(i / 5)] as number),
    };
    const back = await timesTransposed(turned, turned);
    for (const [i, x] of back.data.entries()) expect(x).toBeCloseTo(s.data[i] as number, 12);
    expect((await choleskyRows({ rows: 3, columns: 3, data: new Float64Array(9) })).rows).toBe(0);
  });
});

describe("KID", () => {
  test("equals the definition, of all images", async () => {
    const found = await kernelDistance(A.slice(0, 150), B);
    expect(found).toMatchObject({ subsets: 1, subsetSize: 150, deviation: 0 });
    expect(found.value).toBeCloseTo(0.0386376874, 10);
  });

  test("equals torch-fidelity with its subsets", async () => {
    expect([...new SubsetDrawer(2020).draw(200, 50).slice(0, 6)]).toEqual([199, 119, 186, 27, 57, 145]);
    const found = await kernelDistance(A, B, { subsets: 10, subsetSize: 50 });
    expect(found.value).toBeCloseTo(0.04484182, 7);
    expect(found.deviation).toBeCloseTo(0.01121134, 7);
  });

  test("is about 0, and may be below it, of two halves of one set", async () => {
    const found = await kernelDistance(A.slice(0, 100), A.slice(100));
    expect(Math.abs(found.value)).toBeLessThan(0.01);
  });

  test("subsets larger than a set are refused", async () => {
    expect(await femoError("E_OPTION", () => kernelDistance(A, B, { subsetSize: 151 }))).toContain("2 to 150");
  });
});

describe("precision and recall", () => {
  test("equal the reference", async () => {
    const { precision, recall } = await precisionRecall(A, B);
    expect(precision).toBeCloseTo(0.226667, 6);
    expect(recall).toBeCloseTo(0.665, 6);
  });

  test("turn round with the sets", async () => {
    const { precision, recall } = await precisionRecall(B, A);
    expect([recall, precision].map((x) => Number(x.toFixed(6)))).toEqual([0.226667, 0.665]);
  });

  test("of a set and itself are 1; of sets far apart 0", async () => {
    expect(await precisionRecall(A, A)).toMatchObject({ precision: 1, recall: 1 });
    const far = A.map((row) => row.map((x) => x + 100));
    expect(await precisionRecall(A, far)).toMatchObject({ precision: 0, recall: 0 });
  });

  test("more neighbours than images are refused", async () => {
    expect(await femoError("E_OPTION", () => precisionRecall(A.slice(0, 3), B))).toContain(
      "1 to 2 neighbours, found 3",
    );
  });
});
