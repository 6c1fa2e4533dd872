import { describe, expect, test, vi } from "vitest";
import type { CacheOptions } from "../../src/index.js";
import { type CostOptions, settingsAtCost } from "../../src/studies/index.js";
import { nearest } from "../../src/studies/settings-at-cost.js";
import { openTinyPipeline } from "../tiny-pipeline.js";

const { pipeline } = await openTinyPipeline();

const request = { numInferenceSteps: 12, classLabels: ["oak", "ibis"], seed: 3 };
const find = (cache: CacheOptions, speedup: number, options: Partial<CostOptions> = {}) =>
  settingsAtCost(pipeline, cache, { ...request, ...options, speedup });

test("of a schedule no other interval comes nearer, and the other fields stay", async () => {
  for (const wanted of [1.3, 2, 2.6]) {
    const { settings, speedup } = await find({ method: "taylorSeer", granularity: "output", order: 1 }, wanted);
    const reached = Array.from({ length: 12 }, (_, i) => {
      const flops = pipeline.plannedFlops({ ...request, cache: { ...settings, interval: i + 1 } as CacheOptions });
      return flops?.speedup as number;
    });
    const gaps = reached.map((other) => Math.abs(other - wanted));
    expect(settings).toMatchObject({ method: "taylorSeer", granularity: "output", order: 1 });
    expect(reached).toContain(speedup);
    expect(Math.abs(speedup - wanted)).toBeCloseTo(Math.min(...gaps), 9);
  }
});

test("of a schedule nothing is drawn", async () => {
  const drawn = vi.spyOn(pipeline, "generate");
  await find("femo", 2);
  expect(drawn).not.toHaveBeenCalled();
  drawn.mockRestore();
});

test("of a method that looks it is what a run of these images counts", async () => {
  const { settings, speedup } = await find("firstBlock", 1.25);
  const { report } = await pipeline.generate({ ...request, cache: settings });
  expect(report.flops.speedup).toBe(speedup);
  expect(speedup).toBeGreaterThan(1.1);
  expect(speedup).toBeLessThan(1.4);
});

test("what cannot be reached ends at the end of the knob", async () => {
  expect((await find("firstBlock", 100)).settings).toMatchObject({ threshold: 2 });
  expect((await find("fora", 0.1)).settings).toMatchObject({ interval: 1 });
});

test("it ends with the signal, and before anything is drawn", async () => {
  const reason = new Error("stop");
  for (const method of ["fora", "firstBlock"] as const) {
    await expect(find(method, 2, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  }
});

test.each<[string, CacheOptions, number]>([
  ["cache: none has no field", "none", 2],
  ["speedup: expected", "fora", 0],
  ["speedup: expected", "fora", Number.NaN],
  ["granularity: expected", { method: "fora", granularity: "attic" }, 2],
])("%s is refused", async (words, cache, speedup) => {
  await expect(find(cache, speedup)).rejects.toMatchObject({
    code: "E_OPTION",
    message: expect.stringContaining(words),
  });
});

describe("bisection", () => {
  const search = async (field: "interval" | "threshold", wanted: number, speedupOf: (value: number) => number) => {
    const tried: number[] = [];
    const found = await nearest({ field, from: field === "interval" ? 1 : 0, to: 50 }, wanted, async (value) => {
      tried.push(value);
      return speedupOf(value);
    });
    return { ...found, tried };
  };

  test("tries whole intervals only, and finds the nearest of all", async () => {
    for (let wanted = 1; wanted <= 50; wanted += 0.7) {
      const { value, tried } = await search("interval", wanted, (interval) => interval);
      expect(Math.abs(value - wanted)).toBeLessThan(0.51);
      expect(tried.every(Number.isInteger)).toBe(true);
    }
  });

  test("keeps away from where nothing can be run", async () => {
    const { speedup, tried } = await search("threshold", 3, (threshold) => (threshold > 5 ? Infinity : 1 + threshold));
    expect(Math.abs(speedup / 3 - 1)).toBeLessThan(0.02);
    expect(Math.max(...tried)).toBe(50);
  });

  test("comes as near as a speed-up that jumps allows", async () => {
    const { speedup } = await search("threshold", 3, (threshold) => (threshold < 7.3 ? 2.5 : 4));
    expect(speedup).toBe(2.5);
  });
});
