import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { femo, tinyModel } from "./run.js";

const out = mkdtempSync(join(tmpdir(), "femo-study-"));
afterAll(() => rmSync(out, { recursive: true }));
let model: readonly [string, string];
beforeAll(async () => {
  model = await tinyModel();
});

const study = (...args: string[]) =>
  femo([
    ...[
      "study",
      "quality",
      ...model,
      "--steps",
      "6",
      "--methods",
      "fora,femo",
      "--levels",
      "output",
      "--speedups",
      "2",
    ],
    ...["--converged-steps", "0", "--part-size", "2", "--classifier", "none", "--quiet", ...args],
  ]);

test("shards in one folder and in others come together in a report", async () => {
  const [here, there] = [join(out, "here"), join(out, "there")];
  expect(await study("--out", here, "--images", "4", "--shard", "1/2", "--figures", "output")).toMatchObject({
    code: 0,
    stderr: "",
  });
  expect(await study("--out", there, "--images", "4", "--shard", "2/2")).toMatchObject({ code: 0 });
  const { code } = await study("--out", here, "--images", "4", "--report", "--merge", there);
  expect(code).toBe(0);
  const { plan, rows, facts } = JSON.parse(readFileSync(join(here, "rows.json"), "utf8"));
  expect(plan).toMatchObject({ numInferenceSteps: 6, partSize: 2 });
  expect(facts.Command).toContain("femo study quality");
  for (const row of rows) expect(row.images).toBe(4);
  const lines = readFileSync(join(here, "table.csv"), "utf8").trimEnd().split("\n");
  expect(lines).toHaveLength(rows.length + 1);
  const page = readFileSync(join(here, "report.html"), "utf8");
  expect(page).toContain("FEMO, output");
  expect(page).toContain("The path of a feature at output");
  expect(page).not.toMatch(/<(script|link|img)[^>]+(src|href)="(?!data:)/);
});

test("more images may be asked for later, and come in whole parts", async () => {
  const here = join(out, "more");
  const rowsNow = () => JSON.parse(readFileSync(join(here, "rows.json"), "utf8")).rows as { images: number }[];
  expect(await study("--out", here, "--images", "2")).toMatchObject({ code: 0 });
  expect(rowsNow().every(({ images }) => images === 2)).toBe(true);
  expect(await study("--out", here, "--images", "3")).toMatchObject({ code: 0 });
  expect(rowsNow().every(({ images }) => images === 4)).toBe(true);

  const [cell] = readdirSync(join(here, "parts")).slice(-1) as [string];
  rmSync(join(here, "parts", cell, "2.json"));
  expect(await study("--out", here, "--report")).toMatchObject({ code: 0 });
  expect(rowsNow().every(({ images }) => images === 2)).toBe(true);
  expect(readFileSync(join(here, "report.html"), "utf8")).toContain("images that not all ways have drawn yet");
});

test("a folder with a study of other images is refused, and what there is stays", async () => {
  const here = join(out, "here");
  const { code, stderr } = await study("--out", here, "--images", "4", "--seed", "9");
  expect(code).toBe(2);
  expect(stderr).toContain("seed differs");
  expect(existsSync(join(here, "plan.json"))).toBe(true);
});

test("a file in place of the folder is refused", async () => {
  const file = join(out, "file");
  writeFileSync(file, "kept");
  const { code, stderr } = await study("--out", file, "--images", "2");
  expect(code).toBe(1);
  expect(stderr).toContain(`${file}: the study cannot be kept`);
  expect(readFileSync(file, "utf8")).toBe("kept");
});

test.each([
  [["--report"], "has no study to report on"],
  [["--shard", "3/2"], "one of so many"],
  [["--speedups", "0.5"], "speedups"],
])("femo study quality %j is refused", async (args, words) => {
  const { code, stderr } = await study("--out", join(out, "none"), ...args);
  expect(code).toBe(2);
  expect(stderr).toContain(words);
});
