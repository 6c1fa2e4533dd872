import { describe, expect, test } from "vitest";
import { type RgbImage, resizeBicubic, resizeBicubicFloat, resizeBilinear } from "../../src/images/index.js";
import { fnv, hashed, mix, testImage } from "../metrics/hash-weights.js";
import { femoError } from "../weights/helpers.js";

const sum = (values: ArrayLike<number>): number => Array.prototype.reduce.call(values, (a, b) => a + b, 0) as number;

test("hashed numbers are those of the reference", () => {
  expect(fnv("a")).toBe(3826002220);
  expect([mix(1), mix(12345)]).toEqual([1364076727, 1011272156]);
  expect([...hashed("a", 3)].map((x) => x.toFixed(6))).toEqual(["-0.792948", "-0.668698", "0.430661"]);
  expect([...testImage(64, 48, 1).data.subarray(0, 3)]).toEqual([23, 46, 87]);
  expect(sum(testImage(64, 48, 1).data)).toBe(1_179_807);
  expect(sum(testImage(256, 256, 1).data)).toBe(24_982_082);
});

// Made with Pillow 13 (bicubic), torch 2.15 (half) and TensorFlow 1's rule (tf1).
describe.each<[string, RgbImage, number, number, number, number]>([
  ["smaller", testImage(300, 260, 3), 258, 224, 22_018_871, 22_018_563.74],
  ["larger, out of shape", testImage(64, 48, 3), 299, 299, 34_276_929, 34_276_030.97],
  ["much smaller", testImage(1024, 1024, 3), 224, 224, 19_113_696, 19_113_784.86],
])("bicubic, %s, equals Pillow", (_, image, width, height, bytes, floats) => {
  test("in 8 bits", () => {
    const resized = resizeBicubic(image, width, height);
    expect([resized.width, resized.height]).toEqual([width, height]);
    expect(sum(resized.data)).toBe(bytes);
  });
  test("in float32", () => {
    expect(sum(resizeBicubicFloat(image, width, height).data)).toBeCloseTo(floats, 1);
  });
});

test.each([
  ["half", 34_078_894.51, [182.7675, 118.6376, 73.1585]],
  ["tf1", 34_079_367.4, [184.1336, 120.8228, 74.5627]],
] as const)("bilinear, %s, equals where it comes from", (filter, total, pixel) => {
  const { dims, data } = resizeBilinear(testImage(256, 256, 1), 299, 299, filter);
  expect(dims).toEqual([3, 299, 299]);
  expect(Math.abs(sum(data) - total)).toBeLessThan(1);
  for (const [c, level] of pixel.entries()) expect(data[(c * 299 + 150) * 299 + 150]).toBeCloseTo(level, 3);
});

describe("whatever the sizes", () => {
  const flat = (width: number, height: number): RgbImage => ({
    width,
    height,
    data: Uint8Array.from({ length: 3 * width * height }, (_, i) => [7, 130, 255][i % 3] as number),
  });
  test.each([
    [1, 1, 5, 3],
    [7, 5, 1, 1],
    [40, 3, 3, 40],
  ])("one colour stays one colour: %ix%i to %ix%i", (w, h, width, height) => {
    const image = flat(w, h);
    const { data } = flat(width, height);
    expect(resizeBicubic(image, width, height).data).toEqual(data);
    const planes = [0, 1, 2].flatMap((c) => new Array(width * height).fill([7, 130, 255][c] as number));
    for (const filter of ["half", "tf1"] as const) {
      expect([...resizeBilinear(image, width, height, filter).data]).toEqual(planes);
    }
    for (const [i, level] of resizeBicubicFloat(image, width, height).data.entries()) {
      expect(level).toBeCloseTo(planes[i] as number, 4);
    }
  });

  test("its own size is a copy", () => {
    const image = testImage(9, 5, 2);
    const { data } = resizeBicubic(image, 9, 5);
    expect(data).toEqual(image.data);
    expect(data).not.toBe(image.data);
  });

  test("no size is refused", async () => {
    for (const size of [0, -1, 1.5, Number.NaN]) {
      expect(await femoError("E_OPTION", () => resizeBicubic(flat(2, 2), size, 4))).toContain("positive whole");
      expect(await femoError("E_OPTION", () => resizeBilinear(flat(2, 2), 4, size, "half"))).toContain("whole");
    }
  });
});
