import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { type BytePixels, type FloatPlanes, type Pixels, psnr, ssim } from "../../src/metrics/index.js";
import { mix, testImage } from "./hash-weights.js";

interface Golden {
  name: string;
  width: number;
  height: number;
  a: string;
  b: string;
  psnr: number;
  ssim: number;
}

const goldens: Golden[] = JSON.parse(readFileSync(new URL("../goldens/metrics.json", import.meta.url), "utf8"));

const bytes = ({ width, height }: Golden, base64: string): BytePixels => {
  return { width, height, data: Uint8Array.from(Buffer.from(base64, "base64")) };
};

const withAlpha = (image: BytePixels, alpha: number): BytePixels => ({
  ...image,
  data: Uint8ClampedArray.from({ length: image.width * image.height * 4 }, (_, i) =>
    i % 4 === 3 ? alpha : (image.data[Math.floor(i / 4) * 3 + (i % 4)] as number),
  ),
});

const toPlanes = (image: BytePixels, black: number, white: number): FloatPlanes => {
  const area = image.width * image.height;
  const value = (i: number) => image.data[(i % area) * 3 + Math.floor(i / area)] as number;
  const data = Float32Array.from({ length: 3 * area }, (_, i) => black + (value(i) / 255) * (white - black));
  return { width: image.width, height: image.height, data, range: [black, white] };
};

describe.each(goldens)("$name", (golden) => {
  const [a, b] = [bytes(golden, golden.a), bytes(golden, golden.b)];

  test("equals the definition computed window by window", () => {
    expect(psnr(a, b)).toBeCloseTo(golden.psnr, 10);
    expect(ssim(a, b)).toBeCloseTo(golden.ssim, 10);
  });

  test("is symmetric", () => {
    expect(psnr(b, a)).toBe(psnr(a, b));
    expect(ssim(b, a)).toBeCloseTo(ssim(a, b), 12);
  });

  test("identical images: PSNR Infinity, SSIM 1", () => {
    expect(psnr(a, { ...a, data: a.data.slice() })).toBe(Number.POSITIVE_INFINITY);
    expect(ssim(a, { ...a, data: a.data.slice() })).toBeCloseTo(1, 12);
  });

  test.each([
    [0, 1],
    [-1, 1],
  ])("planes in [%i, %i] give the same scores as bytes", (black, white) => {
    const [p, q] = [toPlanes(a, black, white), toPlanes(b, black, white)];
    expect(psnr(p, q)).toBeCloseTo(golden.psnr, 4);
    expect(ssim(p, q)).toBeCloseTo(golden.ssim, 5);
  });

  test("alpha does not count", () => {
    expect(psnr(withAlpha(a, 10), withAlpha(b, 200))).toBe(psnr(a, b));
    expect(ssim(withAlpha(a, 10), b)).toBe(ssim(a, b));
  });
});

// scikit-image 0.26 on the same pictures.
test("SSIM over either window, and PSNR, equal scikit-image", () => {
  const [a, b] = [testImage(64, 64, 1), testImage(64, 64, 2)];
  const c = { ...a, data: a.data.map((x, i) => Math.min(Math.max(x + (mix(i + 7) % 21) - 10, 0), 255)) };
  for (const [other, decibels, gaussian, uniform] of [
    [b, 10.333655, 0.344048, 0.38697],
    [c, 32.616987, 0.936705, 0.952014],
  ] as const) {
    expect(psnr(a, other)).toBeCloseTo(decibels, 6);
    expect(ssim(a, other)).toBeCloseTo(gaussian, 6);
    expect(ssim(a, other, "uniform7")).toBeCloseTo(uniform, 6);
  }
  expect(ssim(a, a, "uniform7")).toBeCloseTo(1, 12);
});

test("a constant difference of d is 20·log₁₀(255/d) dB", () => {
  const flat = (value: number) => ({ width: 4, height: 2, data: new Uint8Array(24).fill(value) });
  expect(psnr(flat(100), flat(105))).toBeCloseTo(20 * Math.log10(255 / 5), 12);
  expect(psnr(flat(0), flat(255))).toBe(0);
});

test("PSNR falls and SSIM falls as noise grows", () => {
  const image = (noise: number) => ({
    width: 16,
    height: 16,
    data: Uint8Array.from({ length: 768 }, (_, i) => 128 + 60 * Math.sin(i / 9) + noise * Math.sin(i * i)),
  });
  const scores = [2, 8, 32].map((noise) => [psnr(image(0), image(noise)), ssim(image(0), image(noise))] as const);
  for (const metric of [0, 1] as const) {
    const values = scores.map((score) => score[metric]);
    expect(values).toEqual(values.toSorted((x, y) => y - x));
    expect(new Set(values).size).toBe(3);
  }
});

describe("errors", () => {
  const rgb = (width: number, height: number) => ({ width, height, data: new Uint8Array(3 * width * height) });
  const float = (range: [number, number], channels = 3) => {
    return { width: 12, height: 12, data: new Float32Array(channels * 144), range };
  };

  test.each<[string, Pixels, Pixels, string, RegExp]>([
    ["sizes differ", rgb(12, 20), rgb(20, 12), "E_OPTION", /same size, found 12x20 and 20x12/],
    ["kinds differ", rgb(12, 12), float([0, 1]), "E_OPTION", /same kind, found 8-bit and float/],
    ["ranges differ", float([0, 1]), float([-1, 1]), "E_OPTION", /found range \[0, 1\] and \[-1, 1\]/],
    ["channels differ", float([0, 1], 4), float([0, 1], 3), "E_OPTION", /found 4 and 3 channels/],
    ["length", { ...rgb(12, 12), data: new Uint8Array(10) }, rgb(12, 12), "E_IMAGE", /expected 432 \(RGB\).*found 10/],
    ["empty", rgb(0, 0), rgb(0, 0), "E_IMAGE", /found 0x0/],
    ["range", float([1, 1]), float([1, 1]), "E_IMAGE", /black < white, found \[1,1\]/],
  ])("%s", (_, a, b, code, message) => {
    for (const metric of [psnr, ssim]) {
      expect(() => metric(a, b)).toThrow(expect.objectContaining({ code, message: expect.stringMatching(message) }));
    }
  });

  test("SSIM needs room for one window", () => {
    expect(() => ssim(rgb(10, 30), rgb(10, 30))).toThrow(/at least 11x11.*found 10x30/);
  });
});
