import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DiffusionPipeline } from "../../src/pipelines/index.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { expectGolden, optionsOf } from "./golden-images.js";

const goldens = fileURLToPath(new URL("../goldens/sd-pipeline", import.meta.url));
const { seed, defaults, requests } = JSON.parse(readFileSync(`${goldens}/requests.json`, "utf8")) as {
  seed: number;
  defaults: Record<string, unknown>;
  requests: Record<string, Record<string, Record<string, unknown>>>;
};
const models = ["sd1", "sd2", "sdxl", "refiner", "lcm", "inpaint"] as const;
type Model = (typeof models)[number];
const pipelines = {} as Record<Model, DiffusionPipeline>;
beforeAll(async () => {
  for (const model of models) {
    pipelines[model] = await DiffusionPipeline.fromPretrained(`${goldens}/${model}`, { threads: 1 });
  }
});
afterAll(() => Promise.all(models.map((model) => pipelines[model].close())));

const input = await openCheckpoint(nodeFolder(goldens), "input.safetensors");
const picture = { width: 64, height: 64, data: await input.readBytes("image") };
const mask = await input.readBytes("mask");
const maskImage = {
  ...picture,
  data: Uint8Array.from({ length: 3 * mask.length }, (_, i) => mask[Math.floor(i / 3)] as number),
};

describe.each(models)("draws what diffusers draws from the same seeds: %s", (model) => {
  test.each(Object.entries(requests[model] ?? {}))("%s", async (name, asked) => {
    const begins = "strength" in asked && { image: picture, ...(name.startsWith("masked") && { maskImage }) };
    const { images } = await pipelines[model].generate({ ...optionsOf({ ...defaults, ...asked, seed }), ...begins });
    await expectGolden(`${goldens}/${model}`, name, images);
  });
});

describe("base and refiner share the steps", () => {
  const steps = { prompt: "a red fox", numInferenceSteps: 9, seed };
  test.each([0.6, 0.85])("as diffusers does, %s of the noise gone between them", async (part) => {
    const { sdxl, refiner } = pipelines;
    const golden = await openCheckpoint(nodeFolder(goldens), "ensemble.safetensors");
    const first = await sdxl.generate({ ...steps, denoisingEnd: part, outputType: "latent" });
    expect(relativeError(first.latents, await golden.readTensor(`latents_${part}`))).toBeLessThan(1e-4);
    expect(first.report).toMatchObject({ numInferenceSteps: 9, denoisingEnd: part });
    const second = await refiner.generate({ ...steps, denoisingStart: part, latents: first.latents });
    await expectGolden(goldens, `images_${part}`, second.images, "ensemble.safetensors");
    const run = [first, second].map(({ report }) => report.fullSteps[0]?.length ?? 0);
    expect((run[0] as number) + (run[1] as number)).toBe(steps.numInferenceSteps);
  });

  test("a model that shares them with itself draws what it draws alone, image after image", async () => {
    const draw = (options: object) =>
      pipelines.sdxl.generate({ ...steps, prompt: ["a fox", "a frog"], outputType: "latent", ...options });
    const { latents } = await draw({ denoisingEnd: 0.3 });
    const between = await draw({ latents, denoisingStart: 0.3, denoisingEnd: 0.7 });
    const found = await draw({ latents: between.latents, denoisingStart: 0.7 });
    expect(found.latents).toEqual((await draw({})).latents);
  });

  test.each<[options: object, message: string]>([
    [{ denoisingEnd: 1 }, "denoisingEnd: expected a number above 0 and below 1, found 1"],
    [{ denoisingStart: 0, latents: new Float32Array(256) }, "denoisingStart: expected a number above 0"],
    [{ denoisingStart: 0.5 }, "denoisingStart: expected latents beside it"],
    [
      { denoisingStart: 0.5, denoisingEnd: 0.5 },
      "denoisingEnd: expected a number above denoisingStart, 0.5, found 0.5",
    ],
    [{ denoisingStart: 0.5, denoisingEnd: 0.51, latents: new Float32Array(256) }, "denoisingEnd: expected a fraction"],
    [{ denoisingEnd: 0.05 }, "denoisingEnd: expected a fraction that leaves some of 9 steps"],
  ])("%j is refused", async (options, message) => {
    expect(await femoError("E_OPTION", () => pipelines.sdxl.generate({ ...steps, ...options }))).toContain(message);
  });

  test("of XL alone", async () => {
    const message = await femoError("E_OPTION", () => pipelines.sd1.generate({ ...steps, denoisingEnd: 0.5 }));
    expect(message).toContain("denoisingEnd: not of this model");
  });
});

describe("refuses before any prompt is read", () => {
  const phases: string[] = [];
  const request = { prompt: "a fox", numInferenceSteps: 2, onPhase: (phase: string) => phases.push(phase) };
  test.each<[what: string, model: Model, options: object, message: string]>([
    ["a picture and latents", "sd1", { image: picture, latents: new Float32Array(4 * 64) }, "latents: expected none"],
    ["nothing to repaint", "inpaint", {}, "maskImage: expected one, and an image"],
    ["a picture without a mask, of which a model repaints", "inpaint", { image: picture }, "maskImage: expected one"],
  ])("%s", async (_, model, options, message) => {
    expect(await femoError("E_OPTION", () => pipelines[model].generate({ ...request, ...options }))).toContain(message);
    expect(phases).toEqual([]);
  });
});
