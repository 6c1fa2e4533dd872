import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DiffusionPipeline } from "../../src/pipelines/index.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { openCheckpoint } from "../../src/weights/index.js";
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
