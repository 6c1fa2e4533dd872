import { afterAll, beforeAll, expect, test } from "vitest";
import { DiffusionPipeline } from "../../src/pipelines/index.js";

let pipeline: DiffusionPipeline;
beforeAll(async () => {
  pipeline = await DiffusionPipeline.fromPretrained("avatars-flux");
});
afterAll(() => pipeline.close());

/** Colours of backgrounds, as training/captions.mjs has them. */
const backgrounds = {
  blue: [0x8e, 0xc5, 0xff],
  pink: [0xff, 0xb3, 0xd1],
  green: [0xa8, 0xe0, 0xa0],
  yellow: [0xff, 0xe6, 0x80],
  purple: [0xc9, 0xa8, 0xf0],
} as const;

const nearest = (colour: readonly number[]): string => {
  const distance = ([, of]: [string, readonly number[]]) =>
    of.reduce((sum, level, i) => sum + (level - (colour[i] as number)) ** 2, 0);
  return Object.entries(backgrounds).toSorted((a, b) => distance(a) - distance(b))[0]?.[0] as string;
};

test("draws the background that the prompt asks for, at the model's own settings", async () => {
  const names = Object.keys(backgrounds);
  const styles = ["lorelei", "micah", "adventurer", "big smile", "lorelei"];
  const prompt = names.map((name, i) => `a ${styles[i]} portrait, black hair, ${name} background`);
  const { images, report } = await pipeline.generate({ prompt, seed: 5, numInferenceSteps: 10 });
  expect(report).toMatchObject({ trueCfgScale: 3, height: 128, width: 128, maxSequenceLength: 48 });
  const corners = images.map(({ data, width }) => {
    const at = (row: number, column: number) => [...data.subarray(3 * (row * width + column)).slice(0, 3)];
    const some = [at(4, 4), at(4, width - 5), at(8, 8)];
    return [0, 1, 2].map((i) => some.reduce((sum, pixel) => sum + (pixel[i] as number) / some.length, 0));
  });
  expect(corners.map(nearest)).toEqual(names);
});

test("draws another image for another prompt from the same noise", async () => {
  const request = { seed: 9, numInferenceSteps: 4, outputType: "latent" as const };
  const draw = async (prompt: string) => (await pipeline.generate({ ...request, prompt })).latents;
  const [red, again, blue] = [await draw("red hair"), await draw("red hair"), await draw("blue hair")];
  expect(red).toEqual(again);
  expect(red).not.toEqual(blue);
});
