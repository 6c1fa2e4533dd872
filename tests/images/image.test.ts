import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { gridImage, parametersText, type RgbImage } from "../../src/images/index.js";
import { anyCharacter } from "../unicode.js";

const flat = (width: number, height: number, value: number): RgbImage => ({
  width,
  height,
  data: new Uint8Array(3 * width * height).fill(value),
});

describe("gridImage", () => {
  test("places image i at column i mod columns, on white", () => {
    const grid = gridImage([flat(2, 1, 10), flat(2, 1, 20), flat(2, 1, 30)], 2, 1);
    const row = (...values: number[]) => values.flatMap((v) => [v, v, v]);
    expect(grid).toEqual({
      width: 5,
      height: 3,
      data: Uint8Array.from([
        ...row(10, 10, 255, 20, 20),
        ...row(255, 255, 255, 255, 255),
        ...row(30, 30, 255, 255, 255),
      ]),
    });
  });

  test("every pixel of every image is found at its place", () => {
    const sizes = fc.record({
      count: fc.integer({ min: 1, max: 7 }),
      columns: fc.integer({ min: 1, max: 8 }),
      gap: fc.integer({ min: 0, max: 3 }),
      width: fc.integer({ min: 1, max: 4 }),
      height: fc.integer({ min: 1, max: 4 }),
    });
    fc.assert(
      fc.property(sizes, ({ count, columns, gap, width, height }) => {
        const images = Array.from({ length: count }, (_, n) => ({
          width,
          height,
          data: Uint8Array.from({ length: 3 * width * height }, (_, i) => 30 * n + (i % 30)),
        }));
        const grid = gridImage(images, columns, gap);
        const white = grid.data.length - count * 3 * width * height;
        expect(grid.data.length).toBe(3 * grid.width * grid.height);
        expect(grid.data.filter((v) => v === 255)).toHaveLength(white);
        images.forEach((image, n) => {
          const left = (n % columns) * (width + gap);
          const top = Math.floor(n / columns) * (height + gap);
          image.data.forEach((v, i) => {
            const [x, y] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width)];
            expect(grid.data[3 * ((top + y) * grid.width + left + x) + (i % 3)]).toBe(v);
          });
        });
      }),
    );
  });

  test.each<[string, () => RgbImage, RegExp]>([
    ["no image", () => gridImage([], 2), /at least one image/],
    ["sizes differ", () => gridImage([flat(2, 2, 0), flat(2, 3, 0)], 2), /one size, 2x2, found 2x3 at 1/],
    ["no column", () => gridImage([flat(2, 2, 0)], 0), /columns.*found 0/],
    ["negative gap", () => gridImage([flat(2, 2, 0)], 1, -1), /gap.*found -1/],
  ])("%s is refused", (_, make, message) => {
    expect(make).toThrow(expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(message) }));
  });
});

describe("parametersText", () => {
  const parameters = {
    prompt: "a red fox, sitting",
    steps: 50,
    sampler: "DDIM",
    cfgScale: 1.5,
    seed: 42,
    width: 64,
    height: 32,
    model: "dit-small",
  };

  test("prompt, then fields", () => {
    expect(parametersText(parameters)).toBe(
      "a red fox, sitting\nSteps: 50, Sampler: DDIM, CFG scale: 1.5, Seed: 42, Size: 64x32, Model: dit-small",
    );
  });

  test("negative prompt on its own line, extra fields last and in order, awkward values as JSON", () => {
    const extra = { "Cache method": "femo", Zebra: true, Note: 'a "b", c', Lines: "1\n2" };
    expect(parametersText({ ...parameters, negativePrompt: "blurry", seed: 2n ** 63n, extra })).toBe(
      "a red fox, sitting\nNegative prompt: blurry\n" +
        "Steps: 50, Sampler: DDIM, CFG scale: 1.5, Seed: 9223372036854775808, Size: 64x32, Model: dit-small, " +
        'Cache method: femo, Zebra: true, Note: "a \\"b\\", c", Lines: "1\\n2"',
    );
  });

  test("any value reads back by the rule of the web UI", () => {
    fc.assert(
      fc.property(fc.string({ unit: anyCharacter }), fc.string(), (first, second) => {
        const text = parametersText({ ...parameters, extra: { "Field one": first, "field/2": second } });
        expect(readFields(text)).toMatchObject({ Seed: "42", "Field one": first, "field/2": second });
      }),
      { numRuns: 500 },
    );
  });

  test.each(["", "a", "a:b", "a,b", " ab", "ab ", "-ab", "狐狐"])("field name %j is refused", (name) => {
    expect(() => parametersText({ ...parameters, extra: { [name]: 1 } })).toThrow(
      expect.objectContaining({ code: "E_OPTION" }),
    );
  });
});

/** The last line is `name: value` pairs; a value is a JSON string or all up to a comma. */
function readFields(text: string): Record<string, string> {
  const last = text.split("\n").at(-1) ?? "";
  const pairs = last.matchAll(/\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)/g);
  return Object.fromEntries(
    [...pairs].map(([, name, value = ""]) => [name, /^".*"$/s.test(value) ? JSON.parse(value) : value]),
  );
}
