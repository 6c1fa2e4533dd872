import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DiffusionPipeline } from "../../src/index.js";
import { tiny, tinyPipeline } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

describe("a model without an autoencoder", () => {
  test("may draw grey: one channel becomes an image of three equal ones", async () => {
    const { folder, remove } = await tinyPipeline({ channels: 1 });
    const pipeline = await DiffusionPipeline.fromPretrained(folder, { threads: 1 });
    const { images, latents } = await pipeline.generate({ classLabels: ["oak"], numInferenceSteps: 2 });
    await pipeline.close();
    remove();
    expect(latents).toHaveLength(tiny.size ** 2);
    const [{ data } = { data: new Uint8Array() }] = images;
    expect(data).toHaveLength(3 * tiny.size ** 2);
    for (let i = 0; i < data.length; i += 3) expect([data[i + 1], data[i + 2]]).toEqual([data[i], data[i]]);
    expect(new Set(data).size).toBeGreaterThan(10);
  });

  test("may not draw two channels, which are no image", async () => {
    const { folder, remove } = await tinyPipeline({ channels: 2 });
    const message = await femoError("E_CONFIG", () => DiffusionPipeline.fromPretrained(folder));
    remove();
    expect(message).toContain("must draw 3 channels (colours) or 1 (grey), found 2");
  });
});

test("a class that has no family names those that have", async () => {
  const { folder, remove } = await tinyPipeline();
  const index = join(folder, "model_index.json");
  writeFileSync(index, readFileSync(index, "utf8").replace("DiTPipeline", "LumiereVideoPipeline"));
  const message = await femoError("E_CONFIG", () => DiffusionPipeline.fromPretrained(folder));
  remove();
  expect(message).toMatch(/expected a pipeline of the class DiTPipeline, FluxPipeline, .*, found LumiereVideoPipeline/);
});

describe("values that are not finite", () => {
  let model: Awaited<ReturnType<typeof tinyPipeline>>;
  beforeAll(async () => {
    model = await tinyPipeline();
  });
  afterAll(() => model.remove());
  const request = { classLabels: "oak", numInferenceSteps: 3 };

  test.each([Number.NaN, Number.POSITIVE_INFINITY])(
    "a weight of %d ends the request at its first step",
    async (bad) => {
      const file = join(model.folder, "transformer/diffusion_pytorch_model.safetensors");
      const bytes = readFileSync(file);
      const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString());
      const [start] = header["transformer_blocks.0.ff.net.2.weight"].data_offsets;
      const damaged = Buffer.from(bytes);
      damaged.writeFloatLE(bad, 8 + Number(bytes.readBigUInt64LE(0)) + start);
      writeFileSync(file, damaged);
      const pipeline = await DiffusionPipeline.fromPretrained(model.folder, { threads: 1 });
      const message = await femoError("E_RUNTIME", () => pipeline.generate(request));
      await pipeline.close();
      writeFileSync(file, bytes);
      expect(message).toContain("not finite at step 0 of image 0");
    },
  );

  test("a guidance scale that overflows, and latents that are no numbers", async () => {
    const pipeline = await DiffusionPipeline.fromPretrained(model.folder, { threads: 1 });
    const overflow = await femoError("E_RUNTIME", () => pipeline.generate({ ...request, guidanceScale: 1e300 }));
    expect(overflow).toMatch(/latents are not finite at step \d/);
    const latents = new Float32Array(3 * tiny.size ** 2);
    latents[5] = Number.NaN;
    const given = await femoError("E_OPTION", () => pipeline.generate({ ...request, latents }));
    expect(given).toContain("latents: expected finite numbers, found NaN at 5");
    await pipeline.close();
  });
});
