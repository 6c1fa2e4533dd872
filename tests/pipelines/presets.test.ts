import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { DiffusionPipeline } from "../../src/index.js";
import { tinyPipeline } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

const AVATARS = fileURLToPath(new URL("../../models/avatars-dit", import.meta.url));
const root = mkdtempSync(join(tmpdir(), "femo-presets-"));
afterAll(() => rmSync(root, { recursive: true }));

async function presetsOf(model: string) {
  const pipeline = await DiffusionPipeline.fromPretrained(model, { threads: 1 });
  await pipeline.close();
  return pipeline.presets;
}

test("presets belong to what was measured: they come with the model, by whatever path it is opened", async () => {
  const named = await presetsOf("avatars-dit");
  expect(named.femo).toMatchObject({ granularity: "output", beta: -0.2, order: 2, interval: 5 });
  expect(await presetsOf(AVATARS)).toEqual(named);
  cpSync(AVATARS, join(root, "renamed"), { recursive: true });
  expect(await presetsOf(join(root, "renamed"))).toEqual(named);
});

test("another model in a folder of that name has the paper's", async () => {
  const { folder, remove } = await tinyPipeline();
  cpSync(folder, join(root, "avatars-dit"), { recursive: true });
  remove();
  const { femo, fora } = await presetsOf(join(root, "avatars-dit"));
  expect(femo).toMatchObject({ granularity: "module", beta: -0.02 });
  expect(fora).toMatchObject({ granularity: "module" });
});

test("a Stable Diffusion has those of the paper's U-Net", async () => {
  const { femo, taylorSeer, deepCache } = await presetsOf(
    fileURLToPath(new URL("../goldens/sd-pipeline/sdxl", import.meta.url)),
  );
  for (const preset of [femo, taylorSeer])
    expect(preset).toMatchObject({ interval: 2, order: 1, granularity: "deep.1" });
  expect(deepCache).toMatchObject({ interval: 2, cacheBranchId: 1, uniform: true });
});

test.each<[string, string]>([
  ["expected for each method an object", "[]"],
  ["femo: cache: order", '{ "femo": { "order": 9 } }'],
  ["femo: cache: femo: Unrecognized", '{ "femo": { "colour": 1 } }'],
  ["granularity: expected one of module", '{ "femo": { "granularity": "attic" } }'],
  ["nothing: cache: method: expected one of", '{ "nothing": {} }'],
  ["not valid JSON", "{"],
])("a presets file that is malformed is named: %s", async (words, text) => {
  const folder = join(root, "malformed");
  cpSync(AVATARS, folder, { recursive: true });
  writeFileSync(join(folder, "presets.json"), text);
  const message = await femoError("E_CONFIG", () => presetsOf(folder));
  expect(message).toContain("presets.json");
  expect(message).toContain(words);
});
