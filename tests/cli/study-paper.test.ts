import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { femo, tinyModel } from "./run.js";

const out = mkdtempSync(join(tmpdir(), "femo-paper-"));
afterAll(() => rmSync(out, { recursive: true }));
let model: readonly [string, string];
beforeAll(async () => {
  model = await tinyModel();
});

test("the rows of the paper's tables on DiT are run by its protocol", async () => {
  const { code, stderr } = await femo([
    ...["study", "paper", "dit", ...model, "--images", "2", "--no-metrics", "--part-size", "2", "--out", out],
  ]);
  expect(code, stderr).toBe(0);
  expect(stderr).toMatch(/\d+ ways to draw, 2 images here: \d+ full steps for each image, of \d+ ms: about/);
  const { plan, rows } = JSON.parse(readFileSync(join(out, "rows.json"), "utf8"));
  expect(plan.drawing).toEqual({ guidanceScale: 1.5, guidanceChannels: 3, timestepSpacing: "dit" });
  const ran = rows.map((row: { cell: { series: string } }) => row.cell.series);
  expect(ran[0]).toBe("No cache");
  expect(ran).toContain("TaylorSeer, order 4");
  expect(ran).toContain("FEMO, order 1, beta -0.2");
  expect(ran).toContain("Adapted-FEMO, order 2");
  expect(rows).toHaveLength(plan.cells.length);
});

test.each([
  ["flux", "flux-pipeline/dev", ["FEMO, order 1, firstEnhance 3", "Delta-DiT", "FORA, firstEnhance 1"]],
  ["sdxl", "sd-pipeline/sdxl", ["DeepCache, cacheBranchId 4", "FEMO, granularity module"]],
])(
  "the rows of the paper's tables on %s are run by its protocol, one image of a tiny model",
  async (which, path, wanted) => {
    const folder = join(out, which);
    const prompts = join(out, `${which}.txt`);
    writeFileSync(prompts, "a fox in the snow\n");
    const { code, stderr } = await femo([
      ...["study", "paper", which, "--model", fileURLToPath(new URL(`../goldens/${path}`, import.meta.url))],
      ...["--prompts", prompts, "--height", "32", "--width", "32"],
      ...["--images", "1", "--part-size", "1", "--no-metrics", "--out", folder],
    ]);
    expect(code, stderr).toBe(0);
    const { plan, rows } = JSON.parse(readFileSync(join(folder, "rows.json"), "utf8"));
    expect(plan).toMatchObject({ numInferenceSteps: 50, drawing: { height: 32, width: 32 } });
    const ran = rows.map((row: { cell: { series: string } }) => row.cell.series);
    expect(ran).toEqual(expect.arrayContaining(["No cache", ...wanted]));
    expect(rows).toHaveLength(plan.cells.length);
  },
);

test.each([
  [["dit", "--prompts", fileURLToPath(import.meta.url)], "draws classes"],
  [["dit2"], "dit, flux, sdxl"],
])("femo study paper %j is refused", async (args, words) => {
  const { code, stderr } = await femo([
    "study",
    "paper",
    ...args,
    ...model,
    "--out",
    join(out, "none"),
    "--images",
    "1",
  ]);
  expect(code).toBe(2);
  expect(stderr).toContain(words);
});

test("what it would cost is told, and nothing is drawn", async () => {
  const folder = join(out, "estimate");
  const { code, stderr } = await femo(["study", "paper", "dit", ...model, "--estimate", "--out", folder]);
  expect(code).toBe(0);
  expect(stderr).toContain("50000 images here");
});
