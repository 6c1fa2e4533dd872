import { describe, expect, test } from "vitest";
import { blocksOf, type QuantizedMatrix, quantizeMatrix } from "../../src/weights/quantize.js";
import { noise } from "../runtime/helpers.js";
import { femoError } from "./helpers.js";

/** What the bytes stand for, without what fills up the last block of a row. */
const restored = ({ values, scales }: QuantizedMatrix, rows: number, columns: number): number[] =>
  Array.from({ length: rows * columns }, (_, i) => {
    const [row, column] = [Math.floor(i / columns), i % columns];
    const block = row * blocksOf(columns) + Math.floor(column / 128);
    return (scales[block] as number) * ((values[128 * block + (column % 128)] as number) - 128);
  });

describe.each([
  [3, 128],
  [5, 384],
  [4, 1],
  [2, 130],
  [7, 200],
])("%s rows of %s", (rows, columns) => {
  test("a weight is off by half a level at most: 1/254 of the largest of its block", () => {
    const weights = noise([rows, columns], 1).data as Float32Array;
    for (let i = 0; i < weights.length; i++) weights[i] = (weights[i] as number) * 10 ** ((i % 5) - 2);
    const found = restored(quantizeMatrix(weights, columns, "w"), rows, columns);
    for (let start = 0; start < weights.length; ) {
      const end = Math.min(start + 128, (Math.floor(start / columns) + 1) * columns);
      const block = weights.subarray(start, end);
      const bound = (Math.max(...block.map(Math.abs)) / 254) * (1 + 1e-4);
      block.forEach((weight, i) => {
        expect(Math.abs((found[start + i] as number) - weight)).toBeLessThanOrEqual(bound);
      });
      start = end;
    }
  });

  test("whole multiples of a scale up to 127 are exact, a scale for each block", () => {
    const weights = Float32Array.from({ length: rows * columns }, (_, i) => {
      const column = i % columns;
      const level = column % 128 === 0 ? -127 : ((i * 31) % 255) - 127;
      return level * 2 ** -(Math.floor(column / 128) + Math.floor(i / columns));
    });
    expect(restored(quantizeMatrix(weights, columns, "w"), rows, columns)).toEqual([...weights]);
  });
});

test("zeros stay zeros, and what fills up a row is zero", () => {
  const { values, scales } = quantizeMatrix(Float32Array.of(0, 0, 0, 1, 1, 1), 3, "w");
  expect([...scales]).toEqual([0, Math.fround(1 / 127)]);
  expect([...values.subarray(0, 128)]).toEqual(new Array(128).fill(128));
  expect([...values.subarray(128)]).toEqual([255, 255, 255, ...new Array(125).fill(128)]);
});

test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
  "%s is refused by name and place",
  async (x) => {
    const message = await femoError("E_WEIGHT", () => quantizeMatrix(Float32Array.of(1, 2, x, 4), 2, "blocks.0.w"));
    expect(message).toMatch(/blocks\.0\.w: .*element 2/);
  },
);
