import { describe, expect, test } from "vitest";
import { countFlops, Graph, type Value } from "../../src/graph/index.js";
import { productDim } from "../../src/graph/shape.js";
import { engineForTests, evaluate, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();

/** What a graph makes of noise of the given shapes, and that noise. */
async function run(
  shapes: number[][],
  build: (...inputs: Value[]) => Value,
  symbols = shapes as (number | string)[][],
) {
  const graph = new Graph();
  const feeds = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, noise(shape, i + 1)]));
  const value = build(...symbols.map((shape, i) => graph.input(`x${i}`, shape)));
  graph.output("y", value);
  const { y } = await evaluate(engine, graph, feeds);
  return { inputs: shapes.map((_, i) => numbers(feeds[`x${i}`])), value, dims: y?.dims, y: numbers(y) };
}

type Image = (channel: number, y: number, x: number) => number;
/** Pixels of one image of a batch; zero outside. */
const pixels =
  (data: readonly number[], [channels, height, width]: readonly [number, number, number], image: number): Image =>
  (channel, y, x) =>
    y < 0 || x < 0 || y >= height || x >= width
      ? 0
      : (data[((image * channels + channel) * height + y) * width + x] as number);

describe("equal their definitions in float64", () => {
  test.each([
    { kernel: 3, padding: 1, stride: 1 },
    { kernel: 3, padding: 0, stride: 1 },
    { kernel: 3, padding: 1, stride: 2 },
    { kernel: 1, padding: 0, stride: 1 },
    { kernel: 4, padding: 2, stride: 3 },
  ])("conv %o", async ({ kernel, padding, stride }) => {
    const [batch, channels, height, width, out] = [2, 3, 5, 6, 4];
    const shapes = [[batch, channels, height, width], [out, channels, kernel, kernel], [out]];
    const { inputs, dims, value, y } = await run(shapes, (x, w, b) =>
      (x as Value).conv(w as Value, b as Value, { padding, stride }),
    );
    expect(dims).toEqual(value.shape);
    const [x, w, b] = inputs as [number[], number[], number[]];
    const [rows, columns] = [height, width].map((size) => Math.floor((size + 2 * padding - kernel) / stride) + 1);
    const wanted: number[] = [];
    for (let n = 0; n < batch; n++) {
      const at = pixels(x, [channels, height, width], n);
      for (let o = 0; o < out; o++) {
        const weight = pixels(w, [channels, kernel, kernel], o);
        for (let i = 0; i < (rows as number); i++) {
          for (let j = 0; j < (columns as number); j++) {
            let sum = b[o] as number;
            for (let c = 0; c < channels; c++) {
              for (let u = 0; u < kernel; u++) {
                for (let v = 0; v < kernel; v++) {
                  sum += at(c, stride * i + u - padding, stride * j + v - padding) * weight(c, u, v);
                }
              }
            }
            wanted.push(sum);
          }
        }
      }
    }
    expect(relativeError(y, wanted)).toBeLessThan(2e-6);
  });

  test.each([
    [1, 7],
    [5, 1],
    [3, 1],
  ])("conv with a kernel of %ix%i that keeps the size", async (rows, columns) => {
    const [height, width] = [5, 6];
    const shapes = [
      [1, 2, height, width],
      [1, 2, rows, columns],
    ];
    const padding = { height: (rows - 1) / 2, width: (columns - 1) / 2 };
    const { inputs, dims, value, y } = await run(shapes, (x, w) => (x as Value).conv(w as Value, null, { padding }));
    expect([dims, value.shape]).toEqual([
      [1, 1, height, width],
      [1, 1, height, width],
    ]);
    const at = pixels(inputs[0] as number[], [2, height, width], 0);
    const weight = pixels(inputs[1] as number[], [2, rows, columns], 0);
    const wanted = y.map((_, k) => {
      let sum = 0;
      for (let c = 0; c < 2; c++) {
        for (let i = 0; i < rows; i++) {
          for (let j = 0; j < columns; j++) {
            const [row, column] = [Math.floor(k / width) + i - padding.height, (k % width) + j - padding.width];
            sum += at(c, row, column) * weight(c, i, j);
          }
        }
      }
      return sum;
    });
    expect(relativeError(y, wanted)).toBeLessThan(2e-6);
  });

  describe.each([
    { kernel: 3, stride: 1, padding: 1 },
    { kernel: 3, stride: 2 },
    { kernel: 3, stride: 2, ceil: true },
    { kernel: 2, stride: 2, ceil: true },
    { kernel: 2, stride: 3, ceil: true },
  ])("pooling %o", ({ kernel, ...options }) => {
    const { stride, padding = 0, ceil = false } = options;
    test.each([
      [5, 6],
      [8, 7],
    ])("of %ix%i", async (height, width) => {
      const average = await run([[1, 2, height, width]], (x) => (x as Value).averagePool(kernel, options));
      const greatest = await run([[1, 2, height, width]], (x) => (x as Value).maxPool(kernel, options));
      expect(average.dims).toEqual(average.value.shape);
      expect(greatest.dims).toEqual(average.value.shape);
      const [rows, columns] = average.value.shape.slice(2) as [number, number];
      const starts = (size: number): number[] =>
        Array.from({ length: size }, (_, i) => i * stride - padding).filter((start) =>
          ceil ? start < size && (start === 0 || start - stride + kernel < size) : start + kernel <= size + padding,
        );
      expect([rows, columns]).toEqual([starts(height).length, starts(width).length]);
      const data = average.inputs[0] as number[];
      const windows = average.y.map((_, k) => {
        const [top, left] = [Math.floor(k / columns) % rows, k % columns].map((i) => i * stride - padding);
        const inside: number[] = [];
        for (let y = top as number; y < (top as number) + kernel; y++) {
          for (let x = left as number; x < (left as number) + kernel; x++) {
            if (y < 0 || x < 0 || y >= height || x >= width) continue;
            inside.push(data[(Math.floor(k / (rows * columns)) * height + y) * width + x] as number);
          }
        }
        return inside;
      });
      const means = windows.map((window) => window.reduce((a, b) => a + b, 0) / window.length);
      expect(relativeError(average.y, means)).toBeLessThan(1e-6);
      expect(greatest.y).toEqual(windows.map((window) => Math.max(...window)));
    });
  });

  test.each([1, 2, 6])("groupNorm in %i groups", async (groups) => {
    const [channels, area, epsilon] = [6, 12, 0.1];
    const { inputs, dims, y } = await run([[2, channels, 3, 4], [channels], [channels]], (x, s, b) =>
      (x as Value).groupNorm(groups, epsilon, s as Value, b as Value),
    );
    expect(dims).toEqual([2, channels, 3, 4]);
    const [x, scale, bias] = inputs as [number[], number[], number[]];
    const size = (channels / groups) * area;
    const wanted = x.map((value, i) => {
      const group = x.slice(i - (i % size), i - (i % size) + size);
      const mean = group.reduce((a, b) => a + b, 0) / size;
      const variance = group.reduce((a, b) => a + (b - mean) ** 2, 0) / size;
      const channel = Math.floor(i / area) % channels;
      return ((value - mean) / Math.sqrt(variance + epsilon)) * (scale[channel] as number) + (bias[channel] as number);
    });
    expect(relativeError(y, wanted)).toBeLessThan(2e-6);
  });

  test.each([2, 3])("upsampleNearest by %i", async (factor) => {
    const { inputs, dims, y } = await run([[2, 2, 3, 2]], (x) => (x as Value).upsampleNearest(factor));
    expect(dims).toEqual([2, 2, 3 * factor, 2 * factor]);
    const wanted = y.map((_, i) => {
      const [column, row] = [i % (2 * factor), Math.floor(i / (2 * factor))];
      return inputs[0]?.[Math.floor(row / factor) * 2 + Math.floor(column / factor)];
    });
    expect(y).toEqual(wanted);
  });

  test("relu", async () => {
    const { inputs, y } = await run([[40]], (x) => (x as Value).relu());
    expect(y).toEqual(inputs[0]?.map((x) => Math.max(x, 0)));
  });

  test("mish", async () => {
    const { inputs, y } = await run([[40]], (x) => (x as Value).mish());
    const wanted = inputs[0]?.map((x) => x * Math.tanh(Math.log1p(Math.exp(x)))) as number[];
    expect(relativeError(y, wanted)).toBeLessThan(1e-6);
  });
});

test("images of any size pass: convolution, norm, enlargement, and back from tokens", async () => {
  const symbols = [["batch", 4, "height", "width"], [4, 4, 3, 3], [4]];
  const shapes: string[] = [];
  const build = (x?: Value, w?: Value, b?: Value): Value => {
    const h = (x as Value).conv(w as Value, null, { padding: 1 }).groupNorm(2, 1e-6, b as Value, b as Value);
    const large = h.upsampleNearest(2).upsampleNearest(2);
    const tokens = large.reshape([...large.shape.slice(0, 2), productDim(large.shape.slice(2))]);
    const back = tokens.transpose([0, 2, 1]).transpose([0, 2, 1]).reshapeAs(large);
    shapes.push(...[h, back].map(({ shape }) => shape.join()));
    return back;
  };
  for (const [height, width] of [
    [3, 5],
    [4, 2],
  ] as const) {
    const dims = [[2, 4, height, width], [4, 4, 3, 3], [4]];
    const [any, fixed] = [await run(dims, build, symbols), await run(dims, build)];
    expect(any.dims).toEqual([2, 4, 4 * height, 4 * width]);
    expect(any.y).toEqual(fixed.y);
  }
  expect(shapes.slice(0, 2)).toEqual(["batch,4,height,width", "batch,4,4*height,4*width"]);
});

describe("shapes that do not fit are errors that name them", () => {
  const x = (g: Graph): Value => g.input("x", ["batch", 4, "height", 6]);
  test.each<[string, (g: Graph) => unknown, string[]]>([
    ["conv's channels", (g) => x(g).conv(g.weight("w", [2, 3, 3, 3]), null), ["[batch, 4, height, 6]", "[2, 3, 3, 3]"]],
    ["conv's kernel", (g) => x(g).conv(g.weight("w", [2, 4, 3]), null), ["[2, 4, 3]"]],
    ["pooling of a symbol", (g) => x(g).maxPool(3), ["[batch, 4, height, 6]", "windows of 3"]],
    ["pooling that leaves nothing", (g) => g.input("x", [1, 4, 2, 6]).averagePool(3), ["[1, 4, 2, 6]"]],
    ["conv's bias", (g) => x(g).conv(g.weight("w", [2, 4, 1, 1]), g.weight("b", [4])), ["[2, 4, 1, 1], [4]"]],
    ["conv that shrinks a symbol", (g) => x(g).conv(g.weight("w", [2, 4, 3, 3]), null), ["height", "padding 0"]],
    [
      "conv that leaves nothing",
      (g) => g.input("x", [1, 4, 2, 6]).conv(g.weight("w", [2, 4, 3, 3]), null),
      ["[1, 4, 2, 6]", "kernel of 3"],
    ],
    ["groups", (g) => x(g).groupNorm(3, 1e-6, g.weight("s", [4]), g.weight("b", [4])), ["[batch, 4, height, 6]", "3"]],
    ["groupNorm's scale", (g) => x(g).groupNorm(2, 1e-6, g.weight("s", [6]), g.weight("b", [4])), ["[6]", "[4]"]],
    ["reshapeAs", (g) => x(g).reshapeAs(g.input("y", ["batch", 5, "height", 6])), ["[batch, 5, height, 6]"]],
  ])("%s", async (_, build, parts) => {
    const message = await femoError("E_GRAPH", () => build(new Graph()));
    for (const part of parts) expect(message).toContain(part);
  });
});

const image = (g: Graph): Value => g.input("x", ["batch", 4, "height", 5]);
test.each<[string, (g: Graph) => Value, number]>([
  ["conv", (g) => image(g).conv(g.weight("w", [2, 4, 3, 3]), null, { padding: 1 }), 7 * 2 * 15 * 2 * 4 * 9],
  ["conv with bias", (g) => image(g).conv(g.weight("w", [2, 4, 1, 1]), g.weight("b", [2])), 7 * 2 * 15 * (2 * 4 + 1)],
  // of each element: mean 1, variance 3, normalise 2, scale and bias 2 of the operator, 2 of the channels
  ["groupNorm", (g) => image(g).groupNorm(2, 1e-6, g.weight("s", [4]), g.weight("b", [4])), 7 * 60 * 10],
  ["upsampleNearest", (g) => image(g).upsampleNearest(2), 0],
  ["reshapeAs", (g) => image(g).reshapeAs(image(g)), 0],
  ["relu", (g) => image(g).relu(), 7 * 60],
  ["mish", (g) => image(g).mish(), 7 * 60 * 5],
])("operations of %s", (_, build, flops) => {
  const graph = new Graph();
  graph.output("y", build(graph));
  expect(countFlops(graph, { batch: 7, height: 3 })).toBe(flops);
});
