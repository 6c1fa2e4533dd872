import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { granularities } from "../../src/graph/index.js";
import { psnr } from "../../src/metrics/index.js";
import {
  cacheMethods,
  DiffusionPipeline,
  type GenerateOptions,
  type PretrainedOptions,
} from "../../src/pipelines/index.js";
import { relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const goldens = (name: string): string => fileURLToPath(new URL(`../goldens/${name}`, import.meta.url));
const cache = mkdtempSync(join(tmpdir(), "femo-dtype-"));
let [float32, int8]: DiffusionPipeline[] = [];
beforeAll(async () => {
  vi.stubEnv("FEMO_CACHE", cache);
  float32 = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1 });
  int8 = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1, dtype: "int8" });
});
afterAll(async () => {
  await Promise.all([float32?.close(), int8?.close()]);
  rmSync(cache, { recursive: true });
  vi.unstubAllEnvs();
});

const request: GenerateOptions = { classLabels: ["lorelei", "micah", "adventurer"], seed: 3, numInferenceSteps: 8 };
const draw = (pipeline: DiffusionPipeline | undefined, options: Partial<GenerateOptions> = {}) =>
  (pipeline as DiffusionPipeline).generate({ ...request, ...options });

test("8 bits draw the images of float32, not quite: over 35 dB on average (41 measured)", async () => {
  const [a, b] = [await draw(float32), await draw(int8)];
  const quality = a.images.map((image, i) => psnr(image, b.images[i] as typeof image));
  const mean = quality.reduce((sum, x) => sum + x, 0) / quality.length;
  expect(mean, `${quality}`).toBeGreaterThan(35);
  expect(mean).toBeLessThan(99); // the same images would mean that nothing was quantised
});

test("the report says which, and counts the same FLOPs", async () => {
  const [a, b] = [await draw(float32, { numInferenceSteps: 2 }), await draw(int8, { numInferenceSteps: 2 })];
  expect([a.report.dtype, b.report.dtype]).toEqual(["float32", "int8"]);
  expect(b.report.flops).toEqual(a.report.flops);
});

describe("caching works as it does in float32", () => {
  test.each(granularities)("at the level %s: with every step computed it changes nothing", async (granularity) => {
    const steps = { classLabels: 0, numInferenceSteps: 3 };
    const plain = await draw(int8, steps);
    const cached = await draw(int8, { ...steps, cache: { method: "femo", interval: 1, granularity } });
    expect(cached.images).toEqual(plain.images);
  });

  test.each(cacheMethods.filter((method) => method !== "none"))("%s skips steps and draws", async (method) => {
    const { images, report } = await draw(int8, { classLabels: 1, cache: { method, interval: 3 } });
    expect(report.dtype).toBe("int8");
    expect(report.fullSteps.length).toBeLessThan(8);
    expect(new Set(images[0]?.data).size).toBeGreaterThan(16);
  });
});

test.each<[string, string, PretrainedOptions]>([
  ["a folder with an autoencoder", "dit-pipeline", {}],
  ["a file of the original release", "torch/DiT-tiny.pt", { heads: 2, vae: goldens("dit-pipeline") }],
])("%s draws in 8 bits", async (_, path, options) => {
  const drawn: Float32Array[] = [];
  for (const dtype of ["float32", "int8"] as const) {
    const pipeline = await DiffusionPipeline.fromPretrained(goldens(path), { threads: 1, ...options, dtype });
    try {
      const onStep: GenerateOptions["onStep"] = ({ latents }) => drawn.push(Float32Array.from(latents));
      await pipeline.generate({ classLabels: 1, numInferenceSteps: 1, onStep });
    } finally {
      await pipeline.close();
    }
  }
  const error = relativeError(drawn[1] as Float32Array, drawn[0] as Float32Array);
  expect(error).toBeLessThan(0.05);
  expect(error).toBeGreaterThan(0);
});

test.each(["int4", "float16", "", null, 8])("the type %j is refused before anything is opened", async (dtype) => {
  const open = () => DiffusionPipeline.fromPretrained("no-such-model", { dtype } as unknown as PretrainedOptions);
  expect(await femoError("E_OPTION", open)).toMatch(/dtype: expected float32 or int8, found/);
});
