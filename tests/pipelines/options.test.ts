import { createContext, runInContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  type CacheOptions,
  cacheMethods,
  DiffusionPipeline,
  type GenerateOptions,
  type StepProgress,
} from "../../src/pipelines/index.js";
import { TorchGenerator } from "../../src/samplers/index.js";
import { femoError } from "../weights/helpers.js";

let pipeline: DiffusionPipeline;
beforeAll(async () => {
  pipeline = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1 });
});
afterAll(() => pipeline.close());

const solver = { sampler: "multistep", timesteps: [900, 500, 100], table: [[1], [0, 1], [0, 0, 1]] };

const cases: [what: string, options: object, named: (string | RegExp)[]][] = [
  ["an unknown method", { cache: "teaseer" }, ["method", '"teaseer"', ...cacheMethods]],
  ["a method of another type", { cache: { method: 3 } }, ["method", "3"]],
  ["no method", { cache: {} }, ["method"]],
  ["a name that objects have", { cache: "constructor" }, ["method", '"constructor"']],
  ["an unknown key", { cache: { method: "femo", betta: 0.1 } }, ["femo", "betta"]],
  ["a key of another method", { cache: { method: "fora", order: 1 } }, ["fora", "order"]],
  ["a key for no method", { cache: { method: "none", interval: 3 } }, ["none", "interval"]],
  ["beta 1", { cache: { method: "femo", beta: 1 } }, ["beta"]],
  ["beta -1", { cache: { method: "adaptedFemo", beta: -1 } }, ["beta"]],
  ["one beta too large of two", { cache: { method: "femo", beta: [0.1, 1.5] } }, ["beta"]],
  ["no beta", { cache: { method: "femo", beta: [] } }, ["beta"]],
  ["a beta that is no number", { cache: { method: "femo", beta: Number.NaN } }, ["beta"]],
  ["order 0", { cache: { method: "taylorSeer", order: 0 } }, ["order"]],
  ["order 5", { cache: { method: "femo", order: 5 } }, ["order"]],
  ["order 1.5", { cache: { method: "newton", order: 1.5 } }, ["order"]],
  ["interval 0", { cache: { method: "fora", interval: 0 } }, ["interval"]],
  ["interval 2.5", { cache: { method: "fora", interval: 2.5 } }, ["interval"]],
  ["firstEnhance 0", { cache: { method: "fora", firstEnhance: 0 } }, ["firstEnhance"]],
  ["an unknown granularity", { cache: { method: "fora", granularity: "token" } }, ["granularity", "module"]],
  ["an unknown seed", { cache: { method: "femo", momentumSeed: "one" } }, ["momentumSeed", "first-difference"]],
  ["an unknown correction", { cache: { method: "femo", biasCorrection: true } }, ["biasCorrection"]],
  ["gamma below 0", { cache: { method: "adaptedFemo", gamma: -0.1 } }, ["gamma"]],
  ["delta below 0", { cache: { method: "adaptedFemo", delta: -0.1 } }, ["delta"]],
  ["fullSteps without 0", { cache: { method: "fora", fullSteps: [1, 2] } }, ["fullSteps", "0"]],
  ["no fullSteps", { cache: { method: "fora", fullSteps: [] } }, ["fullSteps"]],
  ["fullSteps below 0", { cache: { method: "fora", fullSteps: [0, -1] } }, ["fullSteps"]],
  ["latents of another length", { latents: new Float32Array(5) }, ["latents", "12288", "[1, 3, 64, 64]", "5"]],
  ["class 99", { classLabels: 99 }, ["classLabels", "0 to 8", "99"]],
  ["class 99 in words", { classLabels: "99" }, ["classLabels", "99"]],
  ["the null class", { classLabels: 9 }, ["classLabels", "9"]],
  ["class -1", { classLabels: [0, -1] }, ["classLabels", "-1"]],
  ["class 1.5", { classLabels: 1.5 }, ["classLabels", "1.5"]],
  ["an unknown class", { classLabels: "lorelai" }, ["classLabels", '"lorelai"', /Nearest: "lorelei"/]],
  ["an empty class", { classLabels: "" }, ["classLabels"]],
  ["no class", { classLabels: [] }, ["classLabels"]],
  ["guidance that is no number", { guidanceScale: Number.NaN }, ["guidanceScale", "NaN"]],
  ["endless guidance", { guidanceScale: Number.POSITIVE_INFINITY }, ["guidanceScale", "Infinity"]],
  ["a seed below 64 bits", { seed: -(2n ** 63n) - 1n }, ["seed", "-9223372036854775809"]],
  ["a seed beyond 64 bits", { seed: 2n ** 64n }, ["seed", "18446744073709551616"]],
  ["a number that cannot hold every seed", { seed: 2 ** 53 }, ["seed", "9007199254740992", "bigint"]],
  ["seed 1.5", { seed: 1.5 }, ["seed", "1.5"]],
  ["guidance of 4 channels of 3", { guidanceChannels: 4 }, ["guidanceChannels", "4", "3"]],
  ["guidance of no channel", { guidanceChannels: 0 }, ["guidanceChannels", "0"]],
  ["no steps", { numInferenceSteps: 0 }, ["numInferenceSteps", "0"]],
  ["half a step", { numInferenceSteps: 2.5 }, ["numInferenceSteps", "2.5"]],
  ["more steps than timesteps", { numInferenceSteps: 1001 }, ["numInferenceSteps", "1001"]],
  ["an unknown sampler", { sampler: "heun" }, ["sampler", "ddim", "dpm-solver++", "heun"]],
  ["a solver without timesteps", { sampler: { sampler: "multistep", table: [[1], [0, 1]] } }, ["sampler: timesteps"]],
  ["a solver of another length", { sampler: solver }, ["numInferenceSteps: expected 3", "found 2"]],
  ["a spacing beside a solver", { sampler: solver, numInferenceSteps: 3, timestepSpacing: "dit" }, ["timestepSpacing"]],
  [
    "a setting of another sampler",
    { sampler: { sampler: "ddim", solverOrder: 2 } },
    ["sampler: solverOrder", "ddim", "clipSample"],
  ],
  ["a spacing of another sampler", { sampler: "ddim", timestepSpacing: "lambda" }, ["timestepSpacing", "dpm-solver++"]],
  ["an unknown spacing", { timestepSpacing: "even" }, ["timestepSpacing", "even"]],
  ["no images", { numImagesPerPrompt: 0 }, ["numImagesPerPrompt", "0"]],
  ["too many images of a class", { numImagesPerPrompt: 100_001 }, ["numImagesPerPrompt", "100000", "100001"]],
  [
    "more images than a result may hold",
    { classLabels: [0, 1], numImagesPerPrompt: 40_000 },
    ["numImagesPerPrompt", "69905 images", "4294967296", "80000"],
  ],
  ["a full step beyond the last", { cache: { method: "fora", fullSteps: [0, 2] } }, ["fullSteps", "0 to 1", "found 2"]],
  ["batches of 0", { batchSize: 0 }, ["batchSize", "0"]],
];

test.each(cases)("%s is refused by name", async (_, options, named) => {
  const request = { classLabels: 0, numInferenceSteps: 2, ...options } as GenerateOptions;
  const message = await femoError("E_OPTION", () => pipeline.generate(request));
  for (const part of named) expect(message).toMatch(part);
});

describe("from plain JavaScript", () => {
  test("a cache of another type is refused by name", async () => {
    const request = { classLabels: 0, cache: 3 } as unknown as GenerateOptions;
    expect(await femoError("E_OPTION", () => pipeline.generate(request))).toContain("cache");
  });

  test.each<[string, object]>([
    ["classLabels", { classLabels: undefined }],
    ["classLabels", { classLabels: [null] }],
    ["latents", { latents: new Array(12288).fill(0) }],
    ["numInferenceStep", { numInferenceStep: 3 }],
    ["signal", { signal: {} }],
    ["seed", { seed: "7" }],
    ["guidanceScale", { guidanceScale: 1n }],
    ["outputType", { outputType: 1n }],
    ["cache", { cache: { method: 1n } }],
    ["sampler", { sampler: Symbol("ddim") }],
    ["sampler", { sampler: null }],
    ["sampler", { sampler: { timesteps: [1] } }],
    ["numInferenceSteps", { numInferenceSteps: Object.create(null) }],
    ["onStep", { onStep: "x" }],
  ])("%s is refused by name", async (name, options) => {
    const request = { classLabels: 0, numInferenceSteps: 1, ...options } as unknown as GenerateOptions;
    expect(await femoError("E_OPTION", () => pipeline.generate(request))).toContain(name);
  });

  test.each([undefined, null, 3, "micah", 1n])("options that are %s are refused", async (options) => {
    const request = options as unknown as GenerateOptions;
    expect(await femoError("E_OPTION", () => pipeline.generate(request))).toContain("options: expected an object");
  });

  test("what another realm made is as good", async () => {
    const realm = createContext({ length: 3 * 64 * 64 });
    const latents = runInContext("new Float32Array(length)", realm) as Float32Array;
    expect(latents).not.toBeInstanceOf(Float32Array);
    // Such as a polyfill has: the members of a signal without its class.
    const { signal: own } = new AbortController();
    const signal = { aborted: false, throwIfAborted: () => own.throwIfAborted() } as AbortSignal;
    const { images } = await pipeline.generate({ classLabels: [0], latents, signal, numInferenceSteps: 1 });
    expect(images).toHaveLength(1);
  });
});

describe("seeds are 64 bits, as in PyTorch", () => {
  const draw = (seed: number | bigint, classLabels = [0]) =>
    pipeline.generate({ classLabels, seed, numInferenceSteps: 1, outputType: "image" });

  test("number, bigint and negative seeds of the same bits draw the same, and are reported alike", async () => {
    const [negative, whole] = [await draw(-2), await draw(2n ** 64n - 2n)];
    expect(negative.latents).toEqual(whole.latents);
    expect([negative, whole].map(({ images }) => images[0]?.seed)).toEqual([2n ** 64n - 2n, 2n ** 64n - 2n]);
    expect((await draw(5n)).images[0]?.seed).toBe(5);
  });

  test("after the last comes 0, and each image can be drawn alone", async () => {
    const { images } = await draw(2n ** 64n - 1n, [0, 0, 0]);
    expect(images.map(({ seed }) => seed)).toEqual([2n ** 64n - 1n, 0, 1]);
    const [, second] = images;
    const off = (await draw(0)).images[0]?.data.map((value, i) => Math.abs(value - (second?.data[i] as number)));
    expect(Math.max(...(off ?? [255]))).toBeLessThanOrEqual(1); // the size of a batch may change the order of sums
  });
});

test("the report warns of what a spacing costs", async () => {
  const warnings = async (timestepSpacing: "dit" | "linspace") =>
    (await pipeline.generate({ classLabels: 0, numInferenceSteps: 2, timestepSpacing })).report.warnings;
  expect(await warnings("dit")).toEqual([]);
  expect((await warnings("linspace")).join()).toContain('"linspace" spacing of 2 steps lands beside its own list');
});

test("classes go by number, by name in any case, and with a space for a hyphen", async () => {
  const classLabels = ["Pixel Art", "pixel-art", "0", 0];
  const { images } = await pipeline.generate({ classLabels, numInferenceSteps: 1, batchSize: 4, cache: "none" });
  expect(images.map(({ classId, className }) => [classId, className])).toEqual(new Array(4).fill([0, "pixel-art"]));
});

test("the sampler is the model's own or the request's, and reported; it changes the image", async () => {
  const draw = (options: Partial<GenerateOptions>) =>
    pipeline.generate({ classLabels: 0, numInferenceSteps: 3, ...options });
  const [own, ddim, other] = [await draw({}), await draw({ sampler: "ddim" }), await draw({ sampler: "dpm-solver++" })];
  expect([own, ddim, other].map(({ report }) => report.sampler)).toEqual(["ddim", "ddim", "dpm-solver++"]);
  expect(own.images).toEqual(ddim.images);
  expect(own.images[0]?.data).not.toEqual(other.images[0]?.data);
  expect(other.report.batches[0]?.steps.map(({ timestep }) => timestep)).toEqual([751, 501, 251]);
});

test("settings given with a sampler's name change the image, and the report repeats them, so that they can be given again", async () => {
  const draw = (sampler: NonNullable<GenerateOptions["sampler"]>) =>
    pipeline.generate({ classLabels: 0, numInferenceSteps: 4, timestepSpacing: "trailing", sampler });
  const [plain, none] = [await draw("dpm-solver++"), await draw({ sampler: "dpm-solver++" })];
  const third = await draw({ sampler: "dpm-solver++", solverOrder: 3, lowerOrderFinal: false });
  for (const { report } of [plain, none]) expect(report).not.toHaveProperty("samplerSettings");
  expect(none.images).toEqual(plain.images);
  expect(third.images[0]?.data).not.toEqual(plain.images[0]?.data);
  const { sampler, samplerSettings } = third.report;
  expect([sampler, samplerSettings]).toEqual(["dpm-solver++", { solverOrder: 3, lowerOrderFinal: false }]);
  const again = await draw({ ...samplerSettings, sampler } as NonNullable<GenerateOptions["sampler"]>);
  expect(again.images).toEqual(third.images);
  const refused = { sampler: "dpm-solver++", solverOder: 3 } as unknown as "ddim";
  expect(await femoError("E_OPTION", () => draw(refused))).toMatch(
    /sampler: solverOder: dpm-solver.. has no such setting/,
  );
});

test("a sampler that adds noise draws it by the seed, with latents given too, and a cache is warned of it", async () => {
  const request = { classLabels: 0, numInferenceSteps: 4, sampler: "euler-ancestral", outputType: "latent" } as const;
  const [plain, cached] = [await pipeline.generate(request), await pipeline.generate({ ...request, cache: "fora" })];
  expect(plain.report.warnings).toEqual([]);
  expect(cached.report.warnings.join()).toMatch("Euler ancestral adds fresh noise in its steps");

  const latents = new TorchGenerator(7).randn([1, 3, 64, 64]);
  const drawn = async (options: object) => (await pipeline.generate({ ...request, ...options })).latents;
  expect(await drawn({})).toEqual(plain.latents);
  expect(await drawn({ latents, seed: 1 })).toEqual(await drawn({ latents, seed: 1 }));
  expect(await drawn({ latents, seed: 1 })).not.toEqual(await drawn({ latents, seed: 2 }));
});

test("PNDM calls the model once more than it has steps, and says so in its steps and costs", async () => {
  const request = { classLabels: 0, numInferenceSteps: 4, sampler: "pndm" } as const;
  const seen: string[] = [];
  const onStep = ({ step, numInferenceSteps }: StepProgress) => seen.push(`${step} of ${numInferenceSteps}`);
  const { report } = await pipeline.generate({ ...request, onStep });
  expect(seen).toEqual(["0 of 5", "1 of 5", "2 of 5", "3 of 5", "4 of 5"]);
  expect(report.batches[0]?.steps.map(({ timestep }) => timestep)).toEqual([751, 501, 501, 251, 1]);
  expect([report.flops.speedup, report.fullSteps]).toEqual([1, [[0, 1, 2, 3, 4]]]);
  expect(pipeline.plannedFlops(request)).toEqual(report.flops);
  const late = await pipeline.generate({ ...request, cache: { method: "fora", interval: 2 } });
  expect(late.report.flops).toEqual(pipeline.plannedFlops({ ...request, cache: { method: "fora", interval: 2 } }));
});

test("a method's name alone is its preset, and fields replace the preset's", async () => {
  const reported = async (cache: CacheOptions) =>
    (await pipeline.generate({ classLabels: 0, numInferenceSteps: 1, cache })).report.cache;
  const { femo } = pipeline.presets;
  expect(await reported("femo")).toEqual({ method: "femo", ...femo });
  expect(await reported({ method: "femo", granularity: "output", beta: 0.1 })).toEqual({
    method: "femo",
    ...femo,
    granularity: "output",
    beta: 0.1,
  });
});

describe("opening", () => {
  test("an unknown model is E_FILE and names those there are", async () => {
    const message = await femoError("E_FILE", () => DiffusionPipeline.fromPretrained("avatar-dit"));
    expect(message).toContain('"avatars-dit"');
  });

  test("after close nothing runs", async () => {
    const brief = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1 });
    await brief.close();
    await femoError("E_RUNTIME", () => brief.generate({ classLabels: 0, numInferenceSteps: 1 }));
  });
});
