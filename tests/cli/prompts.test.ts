import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { decodePng } from "../../src/images/index.js";
import { femo, folder } from "./run.js";

const model = ["--model", fileURLToPath(new URL("../goldens/flux-pipeline/schnell", import.meta.url))];
const small = ["--height", "32", "--width", "48", "--max-sequence-length", "12", "--steps", "2"];

test("an image of each prompt, named by it, that says how it was drawn", async () => {
  const cwd = folder();
  const guided = ["--negative-prompt", "snow", "--true-cfg-scale", "3", "--seed", "5"];
  const { code, stdout } = await femo(
    ["generate", "A fox, in the snow!", "two lemons", ...model, ...small, ...guided],
    { cwd },
  );
  expect(code).toBe(0);
  const files = ["femo-a-fox-in-the-snow-5.png", "femo-two-lemons-6.png"];
  expect(readdirSync(cwd)).toEqual(files);
  expect(stdout.trim().split("\n")).toEqual(files);
  const { image, text } = decodePng(readFileSync(join(cwd, files[0] as string)));
  expect([image.height, image.width]).toEqual([32, 48]);
  expect(text.parameters).toMatch(
    /^A fox, in the snow!\nNegative prompt: snow\nSteps: 2, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 48x32/,
  );
  expect(JSON.parse(text.femo ?? "")).toMatchObject({
    ...{ prompt: "A fox, in the snow!", negativePrompt: "snow", trueCfgScale: 3, seed: 5 },
    ...{ height: 32, width: 48, maxSequenceLength: 12, sampler: "euler" },
  });
});

test("a comparison of prompts", async () => {
  const cwd = folder();
  const draws = ["--prompt", "a fox", "two lemons", "--cache", "fora"];
  const { code, stdout } = await femo(["compare", ...draws, ...model, ...small, "--batch-size", "2", "--json"], {
    cwd,
  });
  expect(code).toBe(0);
  const { subjects, rows } = JSON.parse(stdout);
  expect(subjects).toMatchObject([
    { title: "a fox", prompt: "a fox", seed: 0 },
    { title: "two lemons", prompt: "two lemons", seed: 1 },
  ]);
  expect(rows.map(({ name }: { name: string }) => name)).toContain("FORA");
});

test.each([
  [["generate", "a fox", "--height", "33"], "height: expected a multiple of 16"],
  [["generate", "a fox", "--heads", "2"], "heads: only with a model file"],
  [["compare", "--classes", "micah"], "classLabels: not of this model, which draws prompts"],
  [["classes"], "expected a model that draws classes"],
])("%j is refused: %s", async (args, message) => {
  const { code, stderr } = await femo([...args, ...model]);
  expect(code).toBe(2);
  expect(stderr).toContain(message);
});
