import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cacheMethods, DiffusionPipeline, type GenerateOptions } from "../../src/pipelines/index.js";
import { femoError } from "../weights/helpers.js";
import { expectGolden, optionsOf } from "./golden-images.js";

const goldens = fileURLToPath(new URL("../goldens/flux-pipeline", import.meta.url));
const { seed, defaults, requests } = JSON.parse(readFileSync(`${goldens}/requests.json`, "utf8")) as {
  seed: number;
  defaults: Record<string, unknown>;
  requests: Record<string, Record<string, unknown>>;
};
const models = ["dev", "schnell"] as const;
const pipelines = {} as Record<(typeof models)[number], DiffusionPipeline>;
beforeAll(async () => {
  for (const model of models) {
    pipelines[model] = await DiffusionPipeline.fromPretrained(`${goldens}/${model}`, { threads: 1 });
  }
});
afterAll(() => Promise.all(models.map((model) => pipelines[model].close())));

const request: GenerateOptions = {
  ...{ prompt: "a fox in the snow", seed: 3, numInferenceSteps: 4 },
  ...{ height: 64, width: 64, maxSequenceLength: 16 },
};

describe.each(models)("draws what diffusers' FluxPipeline draws from the same seeds: %s", (model) => {
  test.each(Object.entries(requests))("%s", async (name, asked) => {
    const { images } = await pipelines[model].generate(optionsOf({ ...defaults, ...asked, seed }));
    await expectGolden(`${goldens}/${model}`, name, images);
  });
});

test("a request that says nothing else draws by diffusers' defaults", () => {
  expect(pipelines.dev.defaults).toMatchObject({ numInferenceSteps: 28, guidanceScale: 3.5 });
  expect(pipelines.dev.imageSize()).toEqual([1024, 1024]);
});

test("methods are set as the FEMO paper and those before it set them on FLUX", () => {
  const { presets } = pipelines.dev;
  expect(presets.femo).toMatchObject({ order: 1, beta: 0.325, firstEnhance: 3, granularity: "module" });
  expect(presets.adaptedFemo).toMatchObject({ order: 1, beta: 0.325, delta: 0.125, firstEnhance: 3 });
  expect(pipelines.dev.cacheSettings("teaCache")).toMatchObject({ coefficients: "flux" });
  expect(pipelines.dev.cacheSettings("magCache")).toMatchObject({ ratios: "flux" });
});

test("Euler's steps as a solver of the request's own draw what they draw, with a cache's settings beside them", async () => {
  const plain = await pipelines.dev.generate(request);
  const timesteps = plain.report.batches[0]?.steps.map(({ timestep }) => timestep) as number[];
  const table = timesteps.map((_, step) => Array.from({ length: step + 1 }, (__, j) => (j === step ? 1 : 0)));
  const sampler = { sampler: "multistep", timesteps, table } as const;
  const { images, report } = await pipelines.dev.generate({ ...request, sampler });
  expect(report.sampler).toBe("multistep");
  const [before, after] = [plain, { images }].map(({ images: [image] }) => image?.data as Uint8Array);
  const off = Math.max(...(before as Uint8Array).map((level, i) => Math.abs(level - (after?.[i] as number))));
  expect(off).toBeLessThanOrEqual(1);
  expect(pipelines.dev.cacheSettings("none", { sampler, numInferenceSteps: 4 })).toEqual({ method: "none" });
});

test("each image is drawn again alone, from its own prompt and seed", async () => {
  const prompt = ["a red fox", "two lemons", "a red fox"];
  const negativePrompt = ["snow", "", "snow"];
  const options = { ...request, prompt, negativePrompt, trueCfgScale: 3, batchSize: 2 };
  const { images, report } = await pipelines.schnell.generate(options);
  expect(report.batches.map(({ images }) => images)).toEqual([[0, 1], [2]]);
  expect(report.trueCfgScale).toBe(3);
  for (const [i, { data, title }] of images.entries()) {
    expect(title).toBe(prompt[i]);
    const own = { prompt: prompt[i] as string, negativePrompt: negativePrompt[i] as string, seed: 3 + i };
    const [alone] = (await pipelines.schnell.generate({ ...request, trueCfgScale: 3, ...own })).images;
    const off = Math.max(...data.map((level, k) => Math.abs(level - (alone?.data[k] as number))));
    expect(off).toBeLessThanOrEqual(1); // the size of a batch may change the order of sums
  }
});

test("a prompt that is too long is cut off, and the report says what of it was not read", async () => {
  const prompt = `a fox ${"in the snow ".repeat(40)}`;
  const { report } = await pipelines.schnell.generate({ ...request, prompt });
  expect(report.warnings.filter((text) => text.startsWith("A prompt was cut off: CLIP reads 77 tokens"))).toHaveLength(
    1,
  );
  expect(report.warnings.filter((text) => text.startsWith("A prompt was cut off: T5 reads 16 tokens"))).toHaveLength(1);
  const short = await pipelines.schnell.generate(request);
  expect(short.report.warnings.join()).not.toContain("cut off");
});

test("says what it is at, batch by batch, and how long the prompts took", async () => {
  const phases: string[] = [];
  const onPhase = (phase: string) => void phases.push(phase);
  const options = { ...request, prompt: ["a fox", "two lemons"], batchSize: 1 };
  const { report } = await pipelines.schnell.generate({ ...options, onPhase });
  const batch = ["denoising", "decoding"];
  expect(phases).toEqual(["encoding", "conditioning", ...batch, ...batch]);
  expect(report.encodingMs).toBeGreaterThan(0);
  expect(report.encodingMs).toBeLessThan(report.totalMs);
  const failing = () => {
    throw new Error("no more");
  };
  await expect(pipelines.schnell.generate({ ...options, onPhase: failing })).rejects.toThrow("no more");
});

test("the number of tokens that T5 reads is part of the image", async () => {
  const [short, long] = [
    await pipelines.schnell.generate(request),
    await pipelines.schnell.generate({ ...request, maxSequenceLength: 24 }),
  ];
  expect(long.images[0]?.data).not.toEqual(short.images[0]?.data);
});

describe("what has no effect is said", () => {
  test.each<[string, GenerateOptions]>([
    ["guidanceScale has no effect", { guidanceScale: 3.5 }],
    ["trueCfgScale has no effect", { trueCfgScale: 2 }],
    ["negativePrompt has no effect", { negativePrompt: "snow" }],
  ])("%s", async (start, options) => {
    const { report } = await pipelines.schnell.generate({ ...request, ...options });
    expect(report.warnings.filter((text) => text.startsWith(start))).toHaveLength(1);
  });
});

describe("a bad request is refused before anything runs", () => {
  test.each<[GenerateOptions, string]>([
    [{ height: 100 }, "height: expected a multiple of 16 from 16 to 8192 pixels, found 100. The nearest is 96."],
    [{ width: 0 }, "width: expected a multiple of 16 from 16 to 8192 pixels, found 0. The nearest is 16."],
    [{ width: 16_384 }, "width: expected a multiple of 16 from 16 to 8192 pixels, found 16384. The nearest is 8192."],
    [{ maxSequenceLength: 513 }, "maxSequenceLength: expected an integer from 1 to 512, found 513"],
    [{ trueCfgScale: Number.NaN }, "trueCfgScale: expected a finite number, found NaN"],
    [{ prompt: [] }, "prompt: expected at least one, found none"],
    [{ prompt: 3 as never }, "prompt: expected a text, or a list of them, found 3"],
    [
      { prompt: ["a", "b"], prompt2: ["a"] },
      "prompt2: expected one text, or one for each of the 2 prompts, found a list of 1",
    ],
    [{ classLabels: 3 }, "classLabels: not of this model, which draws prompts"],
    [{ sampler: "ddim" }, "sampler: expected"],
  ])("%j", async (options, message) => {
    const run = () => pipelines.schnell.generate({ ...request, ...options });
    expect(await femoError("E_OPTION", run)).toContain(message);
  });

  test("classes are of another kind of model", async () => {
    const { prompt: _, ...rest } = request;
    expect(await femoError("E_OPTION", () => pipelines.schnell.generate({ ...rest }))).toContain(
      "prompt: expected a text",
    );
  });
});

test.each(cacheMethods.filter((method) => !["none", "deepCache", "calibrated"].includes(method)))(
  "%s runs, guided or not",
  async (method) => {
    const options = { ...request, numInferenceSteps: 8, cache: method } as GenerateOptions;
    const guided = { negativePrompt: "snow", trueCfgScale: 2, prompt: ["a fox", "two lemons"] };
    for (const more of [{}, guided]) {
      const { report } = await pipelines.schnell.generate({ ...options, ...more });
      expect(report.cache.method).toBe(method);
      expect(report.flops.done).toBeLessThanOrEqual(1.2 * report.flops.uncached);
    }
  },
);
