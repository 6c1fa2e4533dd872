import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { FemoErrorCode } from "../../src/errors.js";
import { DiffusionPipeline, type PretrainedOptions } from "../../src/pipelines/index.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { NamedSampler } from "../../src/samplers/index.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";

const folder = fileURLToPath(new URL("../goldens/dit-pipeline", import.meta.url));
const request = { classLabels: [207, 3], seed: 5, numInferenceSteps: 8, guidanceScale: 4 };

let pipeline: DiffusionPipeline;
beforeAll(async () => {
  pipeline = await DiffusionPipeline.fromPretrained(folder, { threads: 1 });
});
afterAll(() => pipeline.close());

describe("draws what diffusers' DiTPipeline draws from the same seeds", () => {
  test.each<NamedSampler>(["ddim", "dpm-solver++"])("%s", async (sampler) => {
    const golden = await openCheckpoint(nodeFolder(folder), "golden.safetensors");
    const wanted = await golden.readBytes(sampler);
    const { images, report } = await pipeline.generate({ ...request, sampler });
    const drawn = images.flatMap(({ data }) => [...data]);
    expect(images.map(({ width, height }) => [width, height])).toEqual([
      [16, 16],
      [16, 16],
    ]);
    const off = drawn.map((level, i) => Math.abs(level - (wanted[i] as number)));
    expect(off.filter((levels) => levels > 0).length / off.length).toBeLessThan(0.01);
    expect(Math.max(...off)).toBeLessThanOrEqual(1);
    expect(report.sampler).toBe(sampler);
    expect(report.decodingMs).toBeGreaterThan(0);
  });
});

test("every method at interval 1 draws the same through the autoencoder", async () => {
  const [plain, cached] = [
    await pipeline.generate(request),
    await pipeline.generate({ ...request, cache: { method: "adaptedFemo", interval: 1 } }),
  ];
  expect(cached.images).toEqual(plain.images);
});

test("tiles change the image, and no size of a tile does where the latent fits in it", async () => {
  const whole = await pipeline.generate(request);
  const inOne = await pipeline.generate({ ...request, decodeTileSize: 8 });
  const inTiles = await pipeline.generate({ ...request, decodeTileSize: 4 });
  expect(inOne.images).toEqual(whole.images);
  expect(inTiles.images).not.toEqual(whole.images);
  expect(inTiles.images.map(({ width, height }) => width * height)).toEqual([256, 256]);
});

test.each([3, 6, 0, 1.5])("a tile of %s latent pixels is refused before anything runs", async (decodeTileSize) => {
  const steps: number[] = [];
  const run = () => pipeline.generate({ ...request, decodeTileSize, onStep: ({ step }) => steps.push(step) });
  expect(await femoError("E_OPTION", run)).toContain("decodeTileSize: expected a positive multiple of 4");
  expect(steps).toEqual([]);
});

test("a class without a name goes by its number", async () => {
  expect([...pipeline.classes].slice(0, 2)).toEqual([
    [0, ["0"]],
    [1, ["1"]],
  ]);
  const [byNumber, byName] = await Promise.all(
    [207, "207"].map((classLabels) => pipeline.generate({ ...request, classLabels, numInferenceSteps: 1 })),
  );
  expect(byName?.images).toEqual(byNumber?.images);
});

test("the size of an image is that of the decoded latent", () => {
  expect(pipeline.imageSize()).toEqual([16, 16]);
});

describe("a file of the original DiT release", () => {
  const file = fileURLToPath(new URL("../goldens/torch/DiT-tiny.pt", import.meta.url));
  const open = (options: PretrainedOptions) =>
    DiffusionPipeline.fromPretrained(file, { threads: 1, heads: 2, ...options });

  test("draws with the autoencoder of a pipeline, and the same with the autoencoder alone", async () => {
    const results = [];
    for (const vae of [folder, `${folder}/vae`]) {
      const original = await open({ vae });
      try {
        results.push(await original.generate({ classLabels: 1, numInferenceSteps: 4, guidanceChannels: 3 }));
      } finally {
        await original.close();
      }
    }
    const [first, second] = results;
    expect(first?.report).toMatchObject({ model: "DiT-tiny.pt", sampler: "ddim", timestepSpacing: "dit" });
    expect(new Set(first?.images[0]?.data).size).toBeGreaterThan(16);
    expect(second?.images).toEqual(first?.images);
  });

  test.each<[string, PretrainedOptions, FemoErrorCode, string]>([
    ["without an autoencoder", {}, "E_OPTION", "pass vae"],
    ["with what is no autoencoder", { vae: `${folder}/transformer` }, "E_WEIGHT", "decoder.conv_in.weight"],
    ["with a pipeline that has none", { vae: "avatars-dit" }, "E_FILE", '"vae"'],
  ])("%s: an error says what to do", async (_, options, code, words) => {
    expect(await femoError(code, () => open(options))).toContain(words);
  });

  test("a pipeline folder says itself which autoencoder it has", async () => {
    const run = () => DiffusionPipeline.fromPretrained(folder, { vae: folder });
    expect(await femoError("E_OPTION", run)).toContain("vae");
  });
});
