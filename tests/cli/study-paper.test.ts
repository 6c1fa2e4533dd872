import { mkdtempSync, readFileSync, rmSync } from "node:fs";
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
