import { describe, expect, test } from "vitest";
import { type Forecaster, fora, newton, taylorSeer } from "../../src/methods/forecasts/index.js";
import { type Method, X0 } from "../../src/methods/index.js";
import type { SchedulerConfig } from "../../src/samplers/index.js";
import { graphNames } from "../../src/tracing/index.js";
import { relativeError } from "../runtime/helpers.js";
import { byPattern, tinyRuns } from "./tiny-runs.js";

const { backbone, image, start, run } = tinyRuns();
const keepsX0: Method["cuts"] = { full: {}, forecast: X0 };
const flops = (steps: readonly { flops: number }[]): number => steps.reduce((sum, step) => sum + step.flops, 0);

/**
 * DDIM in doubles on what the network says, x0 of the steps between forecast by a polynomial in the step, and with
 * hindsight walked again from the last full step.
 */
async function reference(index: number, pattern: string, order: number, between: number | undefined) {
  const { sampler, conditioning } = await start(pattern.length);
  const { rows, latent } = image(index);
  const bar = new Float64Array(1000);
  for (let t = 0, product = 1; t < 1000; t++) {
    product *= 1 - (0.0001 + (t * (0.02 - 0.0001)) / 999);
    bar[t] = product;
  }
  const level = (step: number): [alpha: number, sigma: number] => {
    const a = step < pattern.length ? (bar[sampler.timesteps[step] as number] as number) : 1;
    return [Math.sqrt(a), Math.sqrt(1 - a)];
  };
  const network = async (x: readonly number[], step: number): Promise<number[]> => {
    const dims = [rows.length, ...backbone().sampleDims({})];
    const conditions = rows.map(({ condition }) => condition);
    const data = Float32Array.from(rows.flatMap(() => x));
    const { outputs } = await backbone().run(
      {},
      {
        feeds: { ...conditioning.feeds({}, step, conditions, {}), sample: { dtype: "float32", dims, data } },
        fetch: [graphNames.output],
      },
    );
    const all = outputs[graphNames.output]?.data as Float32Array;
    const size = all.length / rows.length;
    return x.map((_, i) => rows.reduce((sum, { weight }, row) => sum + weight * (all[row * size + i] as number), 0));
  };
  /** x at the next step, from x and x0 at this one. */
  const moved = (x: readonly number[], x0: readonly number[], step: number): number[] => {
    const [[alpha, sigma], [nextAlpha, nextSigma]] = [level(step), level(step + 1)];
    return x.map((value, i) => {
      const d = x0[i] as number;
      return nextAlpha * d + (nextSigma * (value - alpha * d)) / sigma;
    });
  };
  /** The polynomial through the newest points, at a step. */
  const through = (
    points: readonly { step: number; x0: readonly number[] }[],
    at: number,
    degree: number,
  ): number[] => {
    const used = points.slice(-(degree + 1));
    return (used[0]?.x0 ?? []).map((_, i) =>
      used.reduce((sum, point, a) => {
        const weight = used.reduce(
          (product, other, b) => (a === b ? product : (product * (at - other.step)) / (point.step - other.step)),
          1,
        );
        return sum + weight * (point.x0[i] as number);
      }, 0),
    );
  };

  let x: number[] = Array.from(latent);
  let behind = x;
  let cheap: number[] = [];
  const points: { step: number; x0: readonly number[] }[] = [];
  for (let step = 0; step < pattern.length; step++) {
    if (pattern[step] === "f") {
      cheap.push(step);
      x = moved(x, through(points, step, order), step);
      continue;
    }
    const [alpha, sigma] = level(step);
    const eps = await network(x, step);
    const x0 = x.map((value, i) => (value - sigma * (eps[i] as number)) / alpha);
    points.push({ step, x0 });
    if (between !== undefined && cheap.length > 0) {
      x = behind;
      for (const again of cheap) x = moved(x, through(points, again, between), again);
    }
    x = moved(x, x0, step);
    behind = x;
    cheap = [];
  }
  return x;
}

describe.each(["FFfFffFf", "FffFffFf"])("x0 forecast through %s", (pattern) => {
  test.each([1, 2])("of order %i is that of doubles, and no graph runs for it", async (order) => {
    const { latents, steps } = await run(byPattern(newton(order) as Forecaster, [pattern], keepsX0), [0]);
    expect(relativeError(latents[0] as Float32Array, await reference(0, pattern, order, undefined))).toBeLessThan(1e-5);
    const [full, cheap] = ["full", "forecast"].map((kind) => steps.filter((step) => step.kind === kind));
    expect(flops(cheap ?? [])).toBeLessThan(0.01 * flops(full ?? []));
    expect(steps.map(({ full }) => (full ? "F" : "f")).join("")).toBe(pattern);
  });

  test.each([1, 2])("with hindsight of order %i is that of doubles, for every image of a batch", async (between) => {
    const method = { ...byPattern(newton(1, between) as Forecaster, [pattern, pattern], keepsX0), hindsight: true };
    const { latents } = await run(method, [0, 1]);
    for (const [i, latent] of latents.entries()) {
      expect(relativeError(latent, await reference(i, pattern, 1, between))).toBeLessThan(1e-5);
    }
    const without = await run({ ...method, hindsight: false }, [0, 1]);
    expect(relativeError(without.latents[0] as Float32Array, latents[0] as Float32Array)).toBeGreaterThan(1e-4);
  });
});

describe("hindsight at the levels of the network", () => {
  /** Reuse of the last feature, and looking back of the one before: hindsight sees nothing new. */
  const blind: Forecaster<number> = {
    history: 2,
    recent: 2,
    averages: 0,
    start: () => Number.NaN,
    update: (_, { position }) => ({ memory: position, rows: [] }),
    combine: (last, position) => (Number.isNaN(last) ? undefined : position > last ? [0, 1] : [1, 0]),
  };

  test.each(["module", "stack", "output"])("that would forecast the same walks the same way: %s", async (level) => {
    const cuts: Method["cuts"] = { full: { capture: { level } }, forecast: { forecast: { level } } };
    const patterns = ["FffFfFff", "FffFfFff"];
    const plain = await run(byPattern(fora(), patterns, cuts), [0, 1]);
    const again = await run({ ...byPattern(blind as Forecaster, patterns, cuts), hindsight: true }, [0, 1]);
    for (const [i, latent] of again.latents.entries()) {
      expect(relativeError(latent, plain.latents[i] as Float32Array)).toBeLessThan(1e-5);
    }
  });

  test.each<SchedulerConfig>([
    { sampler: "ddpm", timestepSpacing: "dit", clipSample: false },
    { sampler: "pndm" },
    { sampler: "unipc", solverOrder: 3 },
  ])("and of $sampler too, by what it drew and knew when it walked them first", async (scheduler) => {
    const numSteps = scheduler.sampler === "pndm" ? 7 : 8; // of PNDM the model is called once more
    const patterns = ["FffFfFff", "FFffFffF"];
    const plain = await run(byPattern(fora(), patterns), [0, 1], numSteps, scheduler);
    const again = await run(
      { ...byPattern(blind as Forecaster, patterns), hindsight: true },
      [0, 1],
      numSteps,
      scheduler,
    );
    for (const [i, latent] of again.latents.entries()) {
      expect(relativeError(latent, plain.latents[i] as Float32Array)).toBeLessThan(1e-4);
      const alone = await run(byPattern(fora(), patterns), [i], numSteps, scheduler);
      expect(relativeError(alone.latents[0] as Float32Array, plain.latents[i] as Float32Array)).toBeLessThan(1e-4);
    }
  });

  test("runs every cheap step behind a full one once more, and says so in its cost", async () => {
    const patterns = ["FffFfFff"];
    const without = await run(byPattern(blind as Forecaster, patterns), [0]);
    const again = await run({ ...byPattern(blind as Forecaster, patterns), hindsight: true }, [0]);
    const cheap = without.steps[1]?.flops as number;
    const extra = again.steps.map((step, i) => (step.flops - (without.steps[i]?.flops as number)) / cheap);
    expect(extra.map((steps) => Number(steps.toFixed(9)))).toEqual([0, 0, 0, 2, 0, 1, 0, 0]);
  });

  test("moves the image, as between two known values features are known better", async () => {
    const pattern = ["FffFffFf"];
    const method = byPattern(newton(1, 1) as Forecaster, pattern);
    const [without, again] = [await run(method, [0]), await run({ ...method, hindsight: true }, [0])];
    expect(relativeError(again.latents[0] as Float32Array, without.latents[0] as Float32Array)).toBeGreaterThan(1e-5);
  });
});

describe("the guard", () => {
  test.each<[string, Method["cuts"] | undefined]>([
    ["features", undefined],
    ["x0", keepsX0],
  ])("makes the step after a bad forecast full, and says so: %s", async (_, cuts) => {
    const method = byPattern(taylorSeer(1) as Forecaster, ["FfFffFff"], cuts);
    const free = await run(method, [0]);
    const errors = free.steps.map(({ forecastError }) => forecastError?.relativeError ?? 0);
    const [first, second] = [errors[2] as number, errors[5] as number];
    const bound = Math.min(first, second) + Math.abs(first - second) / 2;
    const { steps } = await run({ ...method, errorBound: bound }, [0]);
    // A step that the guard adds is measured too, and may ask for another.
    const acted: number[] = [];
    let due = false;
    for (const { step, full, guarded, forecastError } of steps) {
      const planned = "FfFffFff"[step] === "F";
      expect(full).toBe(planned || due);
      expect(guarded).toEqual(due && !planned ? [0] : undefined);
      if (guarded) acted.push(step);
      due = full && (forecastError?.relativeError ?? 0) > bound;
    }
    expect(acted.length).toBeGreaterThan(0);
    expect(acted.length).toBeLessThan(5);
  });

  test("works image by image", async () => {
    const method = byPattern(fora(), ["FfFfffff", "FffffFff"]);
    const bounded = { ...method, errorBound: 1e-9 }; // every forecast is worse
    const { steps } = await run(bounded, [0, 1]);
    const fullOf = (index: number) =>
      steps.filter(({ full, images }) => full && images.includes(index)).map(({ step }) => step);
    expect(fullOf(0)).toEqual([0, 2, 3, 4, 5, 6, 7]);
    expect(fullOf(1)).toEqual([0, 5, 6, 7]);
    const guardedOf = (index: number) =>
      steps.filter(({ guarded }) => guarded?.includes(index)).map(({ step }) => step);
    expect(guardedOf(0)).toEqual([3, 4, 5, 6, 7]);
    expect(guardedOf(1)).toEqual([6, 7]);
  });

  test("computes a step whose forecast is not a finite number, for the image that it happens to", async () => {
    const broken: Forecaster<number> = {
      ...(fora() as Forecaster<number>),
      start: (index) => index,
      update: (memory) => ({ memory, rows: [] }),
      combine: (index, position) => [index === 1 && position === 4 ? Number.NaN : 1],
    };
    const method = byPattern(broken as Forecaster, ["Ffffffff", "Ffffffff"]);
    await expect(run(method, [0, 1])).rejects.toThrow(/not finite at step 3 of image 1/);
    const { steps } = await run({ ...method, errorBound: 1e9 }, [0, 1]);
    const shown = steps
      .filter(({ step }) => step === 3)
      .map(
        ({ kind, images, rejected, guarded }) => `${kind} ${images}${rejected ? " no" : ""}${guarded ? " guard" : ""}`,
      );
    expect(shown).toEqual(["forecast 0", "forecast 1 no", "full 1 guard"]);
    const wanted = await run(byPattern(fora(), ["Ffffffff", "FffFffff"]), [0, 1]);
    const { latents } = await run({ ...method, errorBound: 1e9 }, [0, 1]);
    expect(relativeError(latents[1] as Float32Array, wanted.latents[1] as Float32Array)).toBeLessThan(1e-5);
  });
});
