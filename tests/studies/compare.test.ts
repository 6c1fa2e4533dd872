import { afterAll, beforeAll, expect, test } from "vitest";
import {
  type Comparison,
  compare,
  comparisonHtml,
  comparisonTable,
  DiffusionPipeline,
  defaultVariants,
} from "../../src/index.js";
import { tinyPipeline } from "../tiny-pipeline.js";

let model: Awaited<ReturnType<typeof tinyPipeline>>;
let pipeline: DiffusionPipeline;
let comparison: Comparison;

beforeAll(async () => {
  model = await tinyPipeline();
  pipeline = await DiffusionPipeline.fromPretrained(model.folder, { threads: 1 });
  comparison = await compare(pipeline, {
    classLabels: ["micah", "ibis"],
    numInferenceSteps: 6,
    seed: 5,
    variants: [
      { name: "every step", cache: { method: "femo", interval: 1 } },
      { name: "FORA", cache: { method: "fora", interval: 3 } },
      { name: "half the steps", numInferenceSteps: 3 },
      { name: "half, by another sampler", numInferenceSteps: 3, sampler: "dpm-solver++" },
    ],
  });
});
afterAll(async () => {
  await pipeline.close();
  model.remove();
});

test("each variant is measured against the uncached images of the same seeds", () => {
  const [reference, everyStep, fora, half, other] = comparison.rows;
  expect(comparison.subjects.map(({ seed }) => seed)).toEqual([5, 6]);
  expect(reference).toMatchObject({ flopsSpeedup: 1, measuredSpeedup: 1 });
  expect(reference?.psnr).toBeUndefined();
  expect(everyStep?.psnr?.mean).toBeGreaterThan(60);
  expect(fora?.fullSteps).toEqual([0, 1, 4]);
  expect(fora?.psnr?.mean).toBeLessThan(60);
  expect(fora?.flopsSpeedup).toBeGreaterThan(1.5);
  expect(fora?.flopsSpeedup).toBeLessThan(2);
  expect(half?.flopsSpeedup).toBeCloseTo(2, 1);
  expect([half, other].map((row) => row?.sampler)).toEqual(["ddim", "dpm-solver++"]);
  expect(other?.flopsSpeedup).toBe(half?.flopsSpeedup);
  expect(other?.psnr?.mean).not.toBe(half?.psnr?.mean);
});

test("the methods' rivals are fewer steps of each sampler at their cost, unless they skip nothing", () => {
  const rivals = (interval: number) =>
    defaultVariants(pipeline.presets, { methods: ["fora"], numInferenceSteps: 50, interval }).slice(1);
  expect(rivals(5)).toEqual([
    { name: "11 DDIM steps", sampler: "ddim", numInferenceSteps: 11 },
    { name: "11 DPM-Solver++ steps", sampler: "dpm-solver++", numInferenceSteps: 11 },
  ]);
  expect(rivals(1)).toEqual([]);
});

test("the report has every variant, fetches nothing and escapes names", () => {
  const hostile = '<img src=x onerror="alert(1)"></script>';
  const rows = comparison.rows.map((row, i) => (i === 2 ? { ...row, name: hostile } : row));
  const subjects = comparison.subjects.map((subject) => ({ ...subject, className: hostile }));
  const page = comparisonHtml({ ...comparison, rows, subjects }, { chartJs: "", facts: { Command: hostile } });
  expect(page).not.toContain("<img src=x");
  expect(page).not.toMatch(/(src|href)="?https?:/);
  for (const { name } of comparison.rows.filter((_, i) => i !== 2)) expect(page).toContain(name);
  expect(comparisonTable(comparison).split("\n")).toHaveLength(6);
});
