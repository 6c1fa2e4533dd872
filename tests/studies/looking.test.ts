import { beforeAll, expect, test, vi } from "vitest";
import type { CacheOptions, GenerateOptions } from "../../src/index.js";
import {
  type Comparison,
  compare,
  comparisonTable,
  defaultVariants,
  variantsAtSpeedup,
} from "../../src/studies/index.js";
import { warmUp } from "../../src/studies/warm-up.js";
import { openTinyPipeline } from "../tiny-pipeline.js";

const { pipeline } = await openTinyPipeline();
let comparison: Comparison;
const threshold = 0.8;
/** The bound has errors measured, and is never reached. */
const errorBound = 1e9;
beforeAll(async () => {
  comparison = await compare(pipeline, {
    classLabels: ["oak", "ibis", "micah"],
    numInferenceSteps: 12,
    batchSize: 3,
    seed: 5,
    variants: [{ name: "looks", cache: { method: "firstBlock", threshold, errorBound } }],
  });
});

test("a row's full steps are a range where images decide differently", () => {
  const counts = comparison.rows[1]?.fullSteps.map(({ length }) => length) as number[];
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  expect(least).toBeLessThan(most);
  expect(comparisonTable(comparison)).toContain(`${least}-${most} of 12`);
});

test("a step's share is of all images, and its error that of those that were measured", async () => {
  const row = comparison.rows[1];
  for (const { step, computed } of row?.steps ?? []) {
    const full = row?.fullSteps.filter((steps) => steps.includes(step)).length as number;
    expect(computed).toBeCloseTo(full / 3, 12);
  }
  const mixed = row?.steps.filter(({ computed }) => computed > 0 && computed < 1) ?? [];
  expect(mixed.length).toBeGreaterThan(0);

  const { report } = await pipeline.generate({
    classLabels: ["oak", "ibis", "micah"],
    numInferenceSteps: 12,
    seed: 5,
    cache: { method: "firstBlock", threshold, errorBound },
  });
  for (const { step, forecastError } of mixed) {
    const measured = (report.batches[0]?.steps ?? [])
      .filter((record) => record.step === step && record.forecastError)
      .flatMap(({ images, forecastError }) => images.map(() => (forecastError?.relativeError as number) ** 2));
    const wanted = Math.sqrt(measured.reduce((a, b) => a + b, 0) / measured.length);
    expect(forecastError).toBeCloseTo(wanted, 9);
  }
});

test("an interval is for those that go by one; a method without levels is there once", () => {
  const variants = defaultVariants(pipeline, {
    methods: ["fora", "firstBlock"],
    granularities: ["stack", "output"],
    interval: 3,
  });
  expect(variants.slice(0, 3)).toEqual([
    { name: "FORA, stack", cache: { method: "fora", granularity: "stack", interval: 3 } },
    { name: "First-block cache", cache: { method: "firstBlock" } },
    { name: "FORA, output", cache: { method: "fora", granularity: "output", interval: 3 } },
  ]);
  expect(variants.length).toBe(5); // and two rivals, at the cost of the schedule
  expect(defaultVariants(pipeline, { methods: ["firstBlock"] })).toHaveLength(1);
});

test("at a speed-up each turns its own knob", async () => {
  const variants = await variantsAtSpeedup(pipeline, {
    methods: ["fora", "firstBlock"],
    classLabels: ["oak", "ibis"],
    numInferenceSteps: 12,
    speedup: 1.3,
  });
  const [schedule, looks] = variants.map(({ cache }) => cache as unknown as Record<string, unknown>);
  expect(schedule).toMatchObject({ method: "fora", interval: expect.any(Number) });
  expect(looks).toMatchObject({ method: "firstBlock", threshold: expect.any(Number) });
  expect(looks?.threshold).toBeGreaterThan(0);
  expect(variants.slice(2).map(({ numInferenceSteps }) => numInferenceSteps)).toEqual([9, 9]);
});

test.each<[string, object | "none", string[]]>([
  ["no cache", "none", ["full"]],
  ["a schedule that begins with two", { method: "fora", interval: 5, firstEnhance: 2 }, ["full", "full", "forecast"]],
  [
    "a schedule that begins with one",
    { method: "femo", interval: 3, firstEnhance: 1 },
    ["full", "forecast", "forecast", "full"],
  ],
  ["every step", { method: "fora", interval: 1 }, ["full", "full"]],
  [
    "one that never forecasts, for all that is known",
    { method: "firstBlock", threshold: 0 },
    new Array(10).fill("full"),
  ],
])("warming up runs each kind of step, and no more: %s", async (_, cache, wanted) => {
  const kinds: string[] = [];
  const real = pipeline.stream.bind(pipeline);
  const spy = vi.spyOn(pipeline, "stream").mockImplementation((options: GenerateOptions) => {
    const stream = real(options);
    return {
      ...stream,
      async next() {
        const step = await stream.next();
        if (!step.done) kinds.push(step.value.kind);
        return step;
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  });
  await warmUp(pipeline, { classLabels: [0], numInferenceSteps: 20, cache: cache as CacheOptions });
  spy.mockRestore();
  expect(kinds).toEqual(wanted);
});
