import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { seedAfter, TorchGenerator } from "../../src/samplers/noise.js";

interface Draw {
  size: number;
  values?: number[];
  head?: number[];
  tail?: number[];
  sum?: number;
  sumOfSquares?: number;
}
interface Golden {
  single: { seed: string; draw: Draw }[];
  sequences: { seed: string; draws: Draw[] }[];
}

const golden: Golden = JSON.parse(readFileSync(new URL("../goldens/noise.json", import.meta.url), "utf8"));

const TOLERANCE = 1e-6; // measured: 4.8e-7; the smallest step of the uniforms moves a sample far more

function expectDraw(found: Float32Array, draw: Draw): void {
  expect(found.length).toBe(draw.size);
  expectClose(found, draw.values ?? []);
  expectClose(found, draw.head ?? []);
  expectClose(found.slice(-(draw.tail?.length ?? 1)), draw.tail ?? []);
  if (draw.sum === undefined || draw.sumOfSquares === undefined) return;
  expect(Math.abs(found.reduce((s, v) => s + v, 0) - draw.sum)).toBeLessThan(1e-3);
  expect(Math.abs(found.reduce((s, v) => s + v * v, 0) - draw.sumOfSquares)).toBeLessThan(1e-2);
}

function expectClose(found: Float32Array, expected: number[]): void {
  expected.forEach((value, i) => {
    expect(Math.abs((found[i] ?? Number.NaN) - value), `element ${i}`).toBeLessThanOrEqual(TOLERANCE);
  });
}

describe("TorchGenerator", () => {
  test.each(golden.single)("seed $seed, $draw.size samples equal torch.randn", ({ seed, draw }) => {
    expectDraw(new TorchGenerator(BigInt(seed)).randn([draw.size]), draw);
  });

  test.each(golden.sequences)(
    "seed $seed: the state carries over between calls ($draws.length draws)",
    ({ seed, draws }) => {
      const generator = new TorchGenerator(Number(seed));
      for (const draw of draws) expectDraw(generator.randn([draw.size]), draw);
    },
  );

  test("a shape is its number of elements in row-major order; [] is one element", () => {
    const flat = new TorchGenerator(3).randn([24]);
    expect(new TorchGenerator(3).randn([2, 3, 4])).toEqual(flat);
    expect(new TorchGenerator(3).randn([])).toHaveLength(1);
    expect(new TorchGenerator(3).randn([4, 0])).toHaveLength(0);
  });

  test("number and bigint seeds agree, and only the low 32 bits count", () => {
    const expected = new TorchGenerator(42).randn([20]);
    expect(new TorchGenerator(42n).randn([20])).toEqual(expected);
    expect(new TorchGenerator(2 ** 32 + 42).randn([20])).toEqual(expected);
    expect(new TorchGenerator(43).randn([20])).not.toEqual(expected);
  });

  test("negative seeds are their 64 bits", () => {
    const expected = new TorchGenerator(2n ** 64n - 3n).randn([20]);
    expect(new TorchGenerator(-3).randn([20])).toEqual(expected);
    expect(new TorchGenerator(-3n).randn([20])).toEqual(expected);
  });

  test.each<[seed: number | bigint, i: number, next: number | bigint]>([
    [42, 0, 42],
    [42n, 3, 45],
    [Number.MAX_SAFE_INTEGER, 1, 2n ** 53n],
    [-1, 0, 2n ** 64n - 1n],
    [-1, 1, 0],
    [2n ** 64n - 1n, 2, 1],
    [-(2n ** 63n), 0, 2n ** 63n],
  ])("%s and %i more is %s", (seed, i, next) => expect(seedAfter(seed, i)).toBe(next));

  test.each([1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 2n ** 64n, -(2n ** 63n) - 1n])(
    "rejects seed %s",
    (seed) => {
      expect(() => new TorchGenerator(seed)).toThrow(expect.objectContaining({ code: "E_OPTION" }));
    },
  );

  test.each([[[-1]], [[2.5]], [[3, Number.NaN]]])("rejects shape %j", (shape) => {
    expect(() => new TorchGenerator(0).randn(shape)).toThrow(expect.objectContaining({ code: "E_OPTION" }));
  });
});
