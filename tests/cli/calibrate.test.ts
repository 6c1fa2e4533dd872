import { beforeAll, expect, test } from "vitest";
import { femo, tinyModel } from "./run.js";

let model: readonly [string, string];
beforeAll(async () => {
  model = await tinyModel();
});

test("femo calibrate prints what a method goes by as JSON, which is a cache", async () => {
  const args = ["calibrate", "magCache", ...model, "--classes", "oak,ibis", "--steps", "4", "--quiet"];
  const { code, stdout, stderr } = await femo(args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const found = JSON.parse(stdout);
  expect(found).toMatchObject({
    method: "magCache",
    ratios: [1, expect.any(Number), expect.any(Number), expect.any(Number)],
  });
  const drawn = await femo([
    ...["generate", "oak", ...model, "--steps", "4", "--json", "--cache", "mag-cache"],
    ...["--ratios", found.ratios.join(","), "--threshold", "0.5", "--retention-ratio", "0"],
  ]);
  const { report } = JSON.parse(drawn.stdout);
  expect(report.cache).toMatchObject({ ratios: found.ratios, threshold: 0.5 });
  expect(report.fullSteps[0].length).toBeLessThan(4);
});

test.each([
  [["calibrate", "fora"], "teaCache, magCache"],
  [["generate", "oak", "--cache", "magCache"], "femo calibrate magCache"],
  [["generate", "oak", "--cache", "dbCache", "--steps-mask", "fast", "--steps", "9"], "give the mask itself"],
])("femo %j fails with 2 and says %s", async (args, words) => {
  const { code, stderr } = await femo([...args, ...model]);
  expect(code).toBe(2);
  expect(stderr).toContain(words);
});
