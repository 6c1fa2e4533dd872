import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import type { RgbImage } from "../../src/index.js";
import { ImageClassifier } from "../../src/metrics/index.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { TorchGenerator } from "../../src/samplers/index.js";
import { engineForTests } from "../runtime/helpers.js";
import { safetensors } from "../weights/helpers.js";

const SIZE = 8;
const WIDTHS = [4, 6, 5];
const random = new TorchGenerator(7);
const sessions = new Sessions(engineForTests(), Number.POSITIVE_INFINITY);
const randn = (...shape: number[]) => ({
  shape,
  data: random.randn([shape.reduce((a, b) => a * b, 1)]).map((x) => 0.5 * x),
});

type Weights = Record<string, { shape: number[]; data: Float32Array }>;
const convs: Weights = Object.fromEntries(
  WIDTHS.flatMap((width, i) => [
    [`convs.${i}.weight`, randn(width, i === 0 ? 3 : (WIDTHS[i - 1] as number), 3, 3)],
    [`convs.${i}.bias`, randn(width)],
  ]),
);
const layers = WIDTHS.map((out, i) => ({
  ...{ name: `convs.${i}`, out, kernel: 3, stride: 2, padding: 1, activation: "relu" },
}));
const eye = (n: number) => Float32Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));
const statistics: Weights = {
  mean: { shape: [11], data: new Float32Array(11) },
  covariance: { shape: [11, 11], data: eye(11) },
};
function bytes(weights: Weights): Uint8Array {
  let at = 0;
  const header = Object.entries(weights).map(([name, { shape, data }]) => {
    const start = at;
    at += data.byteLength;
    return [name, { dtype: "F32", shape, data_offsets: [start, at] }];
  });
  const parts = Object.values(weights).map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return safetensors(Object.fromEntries(header), Buffer.concat(parts));
}
const files = (config: object, weights: Weights) =>
  new Map([
    ["config.json", new TextEncoder().encode(JSON.stringify({ imageSize: SIZE, layers, ...config }))],
    ["classifier.safetensors", bytes({ ...convs, ...weights })],
    ["heldout_statistics.safetensors", bytes(statistics)],
  ]);
const root = mkdtempSync(join(tmpdir(), "femo-classifier-"));
afterAll(() => rmSync(root, { recursive: true }));
function open(config: object, weights: Weights): Promise<ImageClassifier> {
  const folder = mkdtempSync(join(root, "c-"));
  for (const [name, content] of files(config, weights)) writeFileSync(join(folder, name), content);
  return ImageClassifier.open(nodeFolder(folder), sessions);
}

const image = (seed: number): RgbImage => ({
  ...{ width: SIZE, height: SIZE },
  data: Uint8Array.from(new TorchGenerator(seed).randn([3 * SIZE * SIZE]), (x) =>
    Math.max(0, Math.min(255, 128 + 60 * x)),
  ),
});

/** Maps after each convolution, [channels][y][x], in float64. */
function maps({ data }: RgbImage): number[][][][] {
  let x = [0, 1, 2].map((c) =>
    Array.from({ length: SIZE }, (_, i) =>
      Array.from({ length: SIZE }, (_, j) => (data[3 * (i * SIZE + j) + c] as number) / 127.5 - 1),
    ),
  );
  return WIDTHS.map((width, layer) => {
    const { data: w } = convs[`convs.${layer}.weight`] as Weights[string];
    const { data: b } = convs[`convs.${layer}.bias`] as Weights[string];
    const side = (x[0] as number[][]).length / 2;
    x = Array.from({ length: width }, (_, o) =>
      Array.from({ length: side }, (_, i) =>
        Array.from({ length: side }, (_, j) => {
          let sum = b[o] as number;
          for (const [c, plane] of x.entries()) {
            for (let u = 0; u < 9; u++) {
              const value = plane[2 * i + Math.floor(u / 3) - 1]?.[2 * j + (u % 3) - 1] ?? 0;
              sum += value * (w[(o * x.length + c) * 9 + u] as number);
            }
          }
          return Math.max(0, sum);
        }),
      ),
    );
    return x;
  });
}

const meanOf = (plane: number[][]): number => plane.flat().reduce((a, b) => a + b, 0) / plane.flat().length;

test("labels and features equal a float64 reference, with a class from the mean of the last map", async () => {
  const weights = { "linear.weight": randn(3, 5), "linear.bias": randn(3) };
  const classifier = await open({ classes: ["a", "b", "c"] }, weights);
  const drawn = [image(1), image(2), image(3)];
  for (const [i, { labels, features }] of (await classifier.classify(drawn)).entries()) {
    const [, second, last] = maps(drawn[i] as RgbImage) as [number[][][], number[][][], number[][][]];
    const means = [second, last].map((map) => map.map(meanOf));
    for (const [k, mean] of means.entries()) {
      expect(Math.max(...mean.map((x, c) => Math.abs(x - (features[k]?.[c] as number))))).toBeLessThan(1e-5);
    }
    const logits = [0, 1, 2].map((o) =>
      (means[1] as number[]).reduce(
        (sum, x, c) => sum + x * (weights["linear.weight"].data[o * 5 + c] as number),
        weights["linear.bias"].data[o] as number,
      ),
    );
    expect(labels).toEqual([["a", "b", "c"][logits.indexOf(Math.max(...logits))]]);
  }
});

test("a head of each attribute reads the last map whole", async () => {
  const classifier = await open(
    { attributes: { hair: ["red", "blue"], mouth: ["smile", "sad"] } },
    {
      ...{
        "heads.hair.weight": { shape: [2, 5], data: new Float32Array(10) },
        "heads.hair.bias": { shape: [2], data: Float32Array.of(0, 1) },
      },
      ...{
        "heads.mouth.weight": { shape: [2, 5], data: new Float32Array(10) },
        "heads.mouth.bias": { shape: [2], data: Float32Array.of(1, 0) },
      },
    },
  );
  expect((await classifier.classify([image(1)])).map(({ labels }) => labels)).toEqual([["blue", "smile"]]);
});

test("the distance is LPIPS' with equal weights, in float64 too, and none of an image from itself", async () => {
  const classifier = await open({ classes: ["a", "b"] }, { "linear.weight": randn(2, 5), "linear.bias": randn(2) });
  const [a, b] = [image(1), image(2)];
  const unit = (map: number[][][], i: number, j: number): number[] => {
    const at = map.map((plane) => plane[i]?.[j] as number);
    const norm = Math.sqrt(at.reduce((sum, x) => sum + x * x, 0)) + 1e-10;
    return at.map((x) => x / norm);
  };
  const [of, other] = [maps(a), maps(b)];
  const wanted = of.reduce((sum, map, layer) => {
    const side = (map[0] as number[][]).length;
    let total = 0;
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const theirs = unit(other[layer] as number[][][], i, j);
        total += unit(map, i, j).reduce((all, x, c) => all + (x - (theirs[c] as number)) ** 2, 0);
      }
    }
    return sum + total / side ** 2;
  }, 0);
  const [apart, same] = await classifier.distances([a, a], [b, a]);
  expect(apart).toBeCloseTo(wanted, 4);
  expect(same).toBe(0);
});

test("what is no such classifier, and images of another size, are refused by name", async () => {
  const weights = { "linear.weight": randn(2, 5), "linear.bias": randn(2) };
  await expect(open({}, weights)).rejects.toMatchObject({
    code: "E_CONFIG",
    message: expect.stringContaining("/config.json is not"),
  });
  await expect(open({ classes: ["a", "b", "c"] }, weights)).rejects.toMatchObject({ code: "E_WEIGHT" });
  const classifier = await open({ classes: ["a", "b"] }, weights);
  const small = { width: 4, height: 4, data: new Uint8Array(48) };
  await expect(classifier.classify([small])).rejects.toMatchObject({
    code: "E_OPTION",
    message: expect.stringContaining("expected images of 8x8 pixels, found 4x4"),
  });
});
