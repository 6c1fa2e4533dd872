import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DiffusionPipeline, hindsight } from "../../src/index.js";
import {
  type CacheFacts,
  chosenCache,
  defaultPresets,
  qualitiesFromJson,
  schedulesFromJson,
} from "../../src/methods/index.js";
import { femoError } from "../weights/helpers.js";

const levels = ["module", "output", "x0"];
const measured = {
  psnr: { mean: 30, median: 31, tenthPercentile: 20 },
  flopsSpeedup: 5,
  images: 64,
  sampler: "ddim",
  numInferenceSteps: 20,
  guidanceScale: 1.5,
};
const sampling = { sampler: "ddim", timestepSpacing: "leading", numInferenceSteps: 20 };
const facts: CacheFacts = {
  levels,
  solvers: [],
  presets: defaultPresets,
  schedules: schedulesFromJson(
    [
      {
        ...sampling,
        fullSteps: [
          [0, 7, 15],
          [0, 4, 9, 16],
        ],
      },
    ],
    "schedules.json",
  ),
  qualities: qualitiesFromJson(
    { fast: { cache: { method: "hindsight", fullSteps: 3, interval: 6 }, measured } },
    defaultPresets,
    levels,
    "qualities.json",
  ),
};

describe("a number of full steps", () => {
  test("becomes the steps that were placed for it", () => {
    const { settings } = chosenCache(hindsight({ fullSteps: 4 }), facts, sampling);
    expect(settings).toMatchObject({ method: "hindsight", fullSteps: [0, 4, 9, 16] });
  });

  test.each<[string, object, number, RegExp]>([
    ["so many", {}, 5, /expected one of 3, 4, or a list of steps, found 5/],
    ["this sampler", { sampler: "dpm-solver++" }, 4, /expected a list of steps, found 4: .* of dpm-solver\+\+/],
    ["this spacing", { timestepSpacing: "dit" }, 4, /with "dit" spacing/],
    ["so many steps", { numInferenceSteps: 30 }, 4, /among 30/],
  ])("is refused where none were placed for %s", (_, other, fullSteps, message) => {
    expect(() => chosenCache(hindsight({ fullSteps }), facts, { ...sampling, ...other })).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(message) }),
    );
  });
});

describe("a quality", () => {
  test("is a method with measured error, its full steps placed", () => {
    const { settings, quality, notes } = chosenCache("fast", facts, sampling);
    expect(settings).toMatchObject({ method: "hindsight", fullSteps: [0, 7, 15] });
    expect(quality).toEqual({ name: "fast", measured });
    expect(notes).toEqual([]);
  });

  test("goes by its interval where nothing was placed, and says that its error was measured otherwise", () => {
    const { settings, notes } = chosenCache("fast", facts, { ...sampling, numInferenceSteps: 30 });
    expect(settings).toMatchObject({ method: "hindsight", interval: 6 });
    expect(settings).not.toHaveProperty("fullSteps");
    expect(notes).toEqual([expect.stringMatching(/measured with 20 steps of ddim, not with 30/)]);
    const given = chosenCache("fast", facts, { ...sampling, samplerSettings: { eta: 1 } });
    expect(given.notes).toEqual([
      expect.stringMatching(/with 20 steps of ddim, not with 20 of ddim with other settings/),
    ]);
  });

  test("that was not measured on the model is refused", () => {
    expect(() => chosenCache("quality", facts, sampling)).toThrow(/"quality": nothing of that kind was measured/);
  });
});

test.each<[string, unknown, RegExp]>([
  ["no list", {}, /the file/],
  ["an unknown field", [{ ...sampling, fullSteps: [], attic: 1 }], /attic/],
  ["steps that fall", [{ ...sampling, fullSteps: [[0, 5, 4]] }], /found 0 5 4/],
  ["no first step", [{ ...sampling, fullSteps: [[1, 5]] }], /rise from 0/],
  ["a step beyond the last", [{ ...sampling, fullSteps: [[0, 20]] }], /at most 19, found 0 20/],
])("a file of schedules with %s is refused", async (_, json, message) => {
  expect(await femoError("E_CONFIG", () => schedulesFromJson(json, "schedules.json"))).toMatch(message);
});

test.each<[string, unknown, RegExp]>([
  ["another quality", { great: { cache: { method: "fora" }, measured } }, /great/],
  ["a field that the method does not have", { fast: { cache: { method: "fora", beta: 1 }, measured } }, /fast: .*beta/],
  ["no measurement", { fast: { cache: { method: "fora" } } }, /fast.measured/],
])("a file of qualities with %s is refused", async (_, json, message) => {
  const read = () => qualitiesFromJson(json, defaultPresets, levels, "qualities.json");
  expect(await femoError("E_CONFIG", read)).toMatch(message);
});

describe("the embedded model", () => {
  let pipeline: DiffusionPipeline;
  beforeAll(async () => {
    pipeline = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1 });
  });
  afterAll(() => pipeline.close());

  test("has placements of 5, 7 and 11 full steps of 50, and every quality, with what it was measured to do", () => {
    for (const fullSteps of [5, 7, 11]) {
      const { fullSteps: steps } = pipeline.cacheSettings(hindsight({ fullSteps })) as { fullSteps: readonly number[] };
      expect(steps).toHaveLength(fullSteps);
    }
    expect(Object.keys(pipeline.qualities)).toEqual(["quality", "balanced", "fast"]);
    const speedups = Object.values(pipeline.qualities).map(({ measured }) => measured.flopsSpeedup);
    expect(speedups).toEqual([...speedups].sort((a, b) => a - b));
    for (const [name, { measured }] of Object.entries(pipeline.qualities)) {
      const cache = name as "fast";
      const flops = pipeline.plannedFlops({ classLabels: 0, numInferenceSteps: measured.numInferenceSteps, cache });
      // What is made of timesteps and conditions weighs more on one image.
      expect((flops?.speedup as number) / measured.flopsSpeedup).toBeCloseTo(1, 1);
    }
  });

  test("says in the report which quality it was, and where caching cannot help", async () => {
    const { report } = await pipeline.generate({ classLabels: 0, numInferenceSteps: 1, cache: "fast" });
    expect(report.quality?.name).toBe("fast");
    expect(report.warnings.join()).toMatch(/was measured with 50 steps.*saved next to nothing/s);
  });
});
