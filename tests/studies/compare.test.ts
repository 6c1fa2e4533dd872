import { afterAll, beforeAll, expect, test } from "vitest";
import { type Comparison, compare, comparisonHtml, comparisonTable, DiffusionPipeline } from "../../src/index.js";

let pipeline: DiffusionPipeline;
let comparison: Comparison;

beforeAll(async () => {
  pipeline = await DiffusionPipeline.fromPretrained("avatars-dit");
  comparison = await compare(pipeline, {
    classLabels: ["micah", "thumbs"],
    numInferenceSteps: 6,
    seed: 5,
    variants: [
      { name: "every step", cache: { method: "femo", interval: 1 } },
      { name: "FORA", cache: { method: "fora", interval: 3 } },
      { name: "half the steps", numInferenceSteps: 3 },
    ],
  });
});
afterAll(() => pipeline.close());

test("each variant is measured against the uncached images of the same seeds", () => {
  const [reference, everyStep, fora, half] = comparison.rows;
  expect(comparison.subjects.map(({ seed }) => seed)).toEqual([5, 6]);
  expect(reference).toMatchObject({ flopsSpeedup: 1, measuredSpeedup: 1 });
  expect(reference?.psnr).toBeUndefined();
  expect(everyStep?.psnr?.mean).toBeGreaterThan(60);
  expect(fora?.fullSteps).toEqual([0, 1, 4]);
  expect(fora?.psnr?.mean).toBeLessThan(60);
  expect(fora?.flopsSpeedup).toBeGreaterThan(1.7);
  expect(fora?.flopsSpeedup).toBeLessThan(2);
  expect(half?.flopsSpeedup).toBeCloseTo(2, 1);
});

test("the report has every variant, fetches nothing and escapes names", () => {
  const hostile = '<img src=x onerror="alert(1)"></script>';
  const rows = comparison.rows.map((row, i) => (i === 2 ? { ...row, name: hostile } : row));
  const subjects = comparison.subjects.map((subject) => ({ ...subject, className: hostile }));
  const page = comparisonHtml({ ...comparison, rows, subjects }, { chartJs: "", facts: { Command: hostile } });
  expect(page).not.toContain("<img src=x");
  expect(page).not.toMatch(/(src|href)="?https?:/);
  for (const { name } of comparison.rows.filter((_, i) => i !== 2)) expect(page).toContain(name);
  expect(comparisonTable(comparison).split("\n")).toHaveLength(5);
});
