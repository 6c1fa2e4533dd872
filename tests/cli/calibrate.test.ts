import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { femo, folder, tinyModel } from "./run.js";

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

test("femo calibrate solver keeps its state and what it draws to come near to, which another fit takes", async () => {
  const cwd = folder();
  const fitted = (...args: string[]) =>
    femo(
      [
        ...["calibrate", "solver", ...model, "--classes", "oak,ibis", "--steps", "6", "--target", "reference"],
        ...["--images", "2", "--held-out", "2", "--iterations", "1", ...args],
      ],
      { cwd },
    );
  const { code, stdout } = await fitted("--full-steps", "3", "--state", "fit.json");
  expect(code).toBe(0);
  expect(JSON.parse(stdout).timesteps).toHaveLength(3);
  expect(JSON.parse(readFileSync(join(cwd, "fit.json"), "utf8"))).toMatchObject({ iteration: 1 });
  const targets = () => readdirSync(join(cwd, "fit.json.targets"));
  expect(targets()).toHaveLength(4);
  const other = await fitted("--full-steps", "2", "--targets", "fit.json.targets", "--quiet");
  expect(other.code).toBe(0);
  expect(targets()).toHaveLength(4);
  const { code: refused, stderr } = await fitted("--full-steps", "2", "--targets", "fit.json");
  expect(refused).toBe(1);
  expect(stderr).toContain("--targets goes elsewhere");
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
