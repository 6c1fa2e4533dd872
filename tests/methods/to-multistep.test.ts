import { describe, expect, test } from "vitest";
import {
  type CacheOptions,
  femo,
  fora,
  hindsight,
  newton,
  type SchedulerConfig,
  taylorSeer,
  toMultistep,
} from "../../src/index.js";
import {
  type Forecaster,
  femo as femoForecast,
  newton as newtonForecast,
  taylorSeer as taylorForecast,
} from "../../src/methods/forecasts/index.js";
import { featureWeights, multistepTable } from "../../src/methods/to-multistep.js";
import { createSampler, ddim, ditScheduler, type Leap, type Level } from "../../src/samplers/index.js";
import { relativeError } from "../samplers/helpers.js";
import { openTinyPipeline, tiny } from "../tiny-pipeline.js";

const fluxScheduler: SchedulerConfig = {
  sampler: "euler",
  predictionType: "flow_prediction",
  useDynamicShifting: true,
  timestepSpacing: "trailing",
};

/** A made-up model: the noise that it sees in x at a step, neither linear nor smooth. */
const noiseOf = (x: number, step: number): number => 0.8 * Math.sin(1.7 * x + 0.2 * step) + 0.3 * Math.abs(x);

/**
 * DDIM, or Euler's method of a flow, in float64 over all steps, with features forecast as the forecaster itself says, and the latents at full steps. With
 * hindsight forecast steps are walked again once the next full step has come, and x0 of that stays.
 */
function simulate(
  leaps: readonly Leap[],
  full: readonly boolean[],
  forecaster: Forecaster,
  of: "eps" | "x0" | "flow_prediction",
  hindsight = false,
) {
  let x = 0.7;
  let behind = { x, step: -1 };
  let memory = forecaster.start(0);
  let [history, averages]: [number[], number[]] = [[], new Array(forecaster.averages).fill(0)];
  const [denoised, stops]: [number[], number[]] = [[], []];
  leaps.forEach(({ from, to }, step) => {
    const { signal: a, noise: sigma } = from;
    const signal = of === "eps" ? a : 1; // what of x0 is not in a velocity, ε − x0
    const position = leaps.length - 1 - step;
    let feature: number;
    let known: number | undefined; // x0 of a full step
    const forecastAt = (cheap: number): number => {
      const padded = [...history, ...new Array(forecaster.history - history.length).fill(0)];
      const weights = forecaster.combine(memory, leaps.length - 1 - cheap) as readonly number[];
      return [...padded, ...averages].reduce((sum, s, i) => sum + s * (weights[i] as number), 0);
    };
    const moved = (at: number, { from, to }: Leap, value: number): number => {
      const { signal: a, noise: sigma } = from;
      const x0 = of === "x0" ? value : (at - sigma * value) / (of === "eps" ? a : 1);
      return to.signal * x0 + (to.noise * (at - a * x0)) / sigma;
    };
    if (full[step]) {
      const output = noiseOf(x, step);
      const x0 = (x - sigma * output) / signal;
      stops.push(x);
      denoised.push(x0);
      feature = of === "x0" ? x0 : output;
      const padded = [...history, ...new Array(forecaster.history - history.length).fill(0)];
      const state = [...padded, ...averages, feature];
      const { memory: next, rows } = forecaster.update(memory, { position, differences: step > 0 });
      averages = rows.map((row) => row.reduce((sum, u, i) => sum + u * (state[i] as number), 0));
      history = [feature, ...history].slice(0, forecaster.history);
      memory = next;
      known = x0;
      if (hindsight && behind.step >= 0) {
        x = behind.x;
        for (let cheap = behind.step + 1; cheap < step; cheap++) x = moved(x, leaps[cheap] as Leap, forecastAt(cheap));
      }
    } else feature = forecastAt(step);
    const x0 = known ?? (of === "x0" ? feature : (x - sigma * feature) / signal);
    x = to.signal * x0 + (to.noise * (x - a * x0)) / sigma;
    if (full[step]) behind = { x, step };
  });
  return { denoised, stops: [...stops, x] };
}

describe("against DDIM and Euler with forecasts, in float64", () => {
  const forecasters: Record<string, Forecaster> = {
    fora: taylorForecast(0) as Forecaster,
    "taylorSeer 2": taylorForecast(2) as Forecaster,
    "newton 2": newtonForecast(2) as Forecaster,
    "femo 2": femoForecast({ order: 2, beta: 0.3 }) as Forecaster,
    "femo 3, first difference": femoForecast({ order: 3, beta: -0.2, momentumSeed: "first-difference" }) as Forecaster,
    "femo 1, uncorrected": femoForecast({ order: 1, beta: 0.2, biasCorrection: "off" }) as Forecaster,
  };
  const again: Record<string, Forecaster> = {
    "newton 1, a line between": newtonForecast(1, 1) as Forecaster,
    "newton 1, a parabola between": newtonForecast(1, 2) as Forecaster,
  };
  const schedules = { even: [0, 1, 5, 9, 13, 17], "no warm-up": [0, 3, 4, 11], "a last one": [0, 6, 19], one: [0] };
  const cases = [...Object.keys(forecasters), ...Object.keys(again)].flatMap((name) =>
    (["eps", "x0", "flow_prediction"] as const).flatMap((of) =>
      (Object.keys(schedules) as (keyof typeof schedules)[]).map((places) => [name, of, places] as const),
    ),
  );
  const diffusion = ddim({ ...ditScheduler, numInferenceSteps: 20 });
  const { position } = diffusion;
  const flow = createSampler(fluxScheduler, { numInferenceSteps: 20, imageTokens: 64 });

  test.each(cases)("%s of %s, full steps: %s", (name, of, places) => {
    const { leaps } = of === "flow_prediction" ? flow : diffusion;
    const hindsight = name in again;
    const forecaster = (forecasters[name] ?? again[name]) as Forecaster;
    const full = leaps.map((_, step) => schedules[places].includes(step));
    const weights = featureWeights({ forecaster, firstDifference: 0, hindsight }, full, position);
    const table = multistepTable({ leaps, full, weights, of });
    const { denoised, stops } = simulate(leaps, full, forecaster, of, hindsight);
    const starts = leaps.filter((_, step) => full[step]).map(({ from }) => from);

    expect(table.map((row) => row.length)).toEqual(starts.map((_, n) => n + 1));
    table.forEach((row, n) => {
      const [from, to] = [starts[n] as Level, starts[n + 1] ?? (leaps.at(-1)?.to as Level)];
      const shrunk = to.noise / from.noise;
      const mean = row.reduce((sum, c, j) => sum + c * (denoised[j] as number), 0);
      const next = shrunk * (stops[n] as number) + (to.signal - from.signal * shrunk) * mean;
      expect(next / (stops[n + 1] as number)).toBeCloseTo(1, 8);
      expect(row.reduce((a, b) => a + b)).toBeCloseTo(1, 8);
    });
  });

  test("forecasts of x0 weigh no more of the past than the forecaster keeps", () => {
    const { leaps } = diffusion;
    const full = leaps.map((_, step) => step % 4 === 0);
    const forecaster = newtonForecast(1) as Forecaster;
    const weights = featureWeights({ forecaster, firstDifference: 0 }, full, position);
    const table = multistepTable({ leaps, full, weights, of: "x0" });
    for (const [n, row] of table.entries()) {
      for (const c of row.slice(0, Math.max(0, n - 1))) expect(c).toBeCloseTo(0, 10);
    }
  });
});

const { pipeline } = await openTinyPipeline();
const { pipeline: flowPipeline } = await openTinyPipeline({
  scheduler: { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 },
});

const numInferenceSteps = 20;
const granularity = "output";

describe.each([
  ["a diffusion", pipeline],
  ["a flow", flowPipeline],
])("on a model of %s", (_, pipeline) => {
  test.each<CacheOptions>([
    "none",
    fora({ granularity, interval: 4 }),
    taylorSeer({ granularity, interval: 4 }),
    newton({ granularity, fullSteps: [0, 2, 7, 12, 18] }),
    femo({ granularity, interval: 3, beta: 0.2, order: 2 }),
    taylorSeer({ granularity: "x0", interval: 4 }),
    hindsight({ interval: 4 }),
    hindsight({ granularity, interval: 4, between: 1 }),
  ])("the solver of %j draws the same latents, and runs the network at its full steps alone", async (cache) => {
    const request = { classLabels: [tiny.classes[0], tiny.classes[3]], seed: 4, outputType: "latent" as const };
    const wanted = await pipeline.generate({ ...request, numInferenceSteps, cache });
    const { scheduler, presets } = pipeline;
    const sampler = toMultistep(cache, { scheduler, presets, numInferenceSteps });
    const found = await pipeline.generate({ ...request, sampler });
    expect(relativeError(found.latents, wanted.latents)).toBeLessThan(1e-4);
    const [full] = wanted.report.fullSteps as [number[]];
    expect(found.report).toMatchObject({
      sampler: "multistep",
      timestepSpacing: "given",
      numInferenceSteps: full.length,
      fullSteps: [full.keys(), full.keys()].map((keys) => [...keys]),
    });
    const timesteps = wanted.report.batches[0]?.steps.filter(({ full }) => full).map(({ timestep }) => timestep);
    expect(sampler.timesteps).toEqual(timesteps);
    expect(sampler.table).toHaveLength(full.length);
  });

  test("a solver that does something else draws something else", async () => {
    const { scheduler } = pipeline;
    const draw = (cache: CacheOptions) =>
      pipeline.generate({
        classLabels: 0,
        outputType: "latent",
        sampler: toMultistep(cache, { scheduler, numInferenceSteps }),
      });
    const fullSteps = [0, 2, 7, 12, 18];
    const [first, second] = [
      await draw(newton({ granularity, fullSteps })),
      await draw(taylorSeer({ granularity, fullSteps })),
    ];
    expect(relativeError(first.latents, second.latents)).toBeGreaterThan(1e-3);
  });
});

test("a model that predicts x0 has its forecasts of x0", () => {
  const scheduler: SchedulerConfig = { ...ditScheduler, predictionType: "sample" };
  const cache = fora({ granularity: "output", interval: 5 });
  const { table } = toMultistep(cache, { scheduler, numInferenceSteps: 20 });
  for (const row of table) {
    expect(row.at(-1)).toBeCloseTo(1, 9); // the last x0 again
    for (const c of row.slice(0, -1)) expect(c).toBeCloseTo(0, 9);
  }
});

describe("what no solver can do is refused", () => {
  const granularity = "output";
  const plain = { scheduler: ditScheduler, numInferenceSteps: 20 };
  test.each<[string, CacheOptions, object, RegExp]>([
    [
      "weights that do not sum to 1",
      femo({ granularity, momentumSeed: "feature", beta: 0.3 }),
      {},
      /momentumSeed "feature"/,
    ],
    ["adapting", { method: "adaptedFemo", granularity }, {}, /cache: .* one that adapts/],
    ["a beta for each image", femo({ granularity, beta: [0.1, 0.2] }), {}, /cache: beta: .* several/],
    ["features elsewhere", femo({ granularity: "module" }), {}, /granularity: expected one of output, x0/],
    ["clipping", "none", { scheduler: { sampler: "ddim" } }, /scheduler: clipSample/],
    ["another sampler", "none", { scheduler: { sampler: "dpm-solver++" } }, /scheduler: expected that of DDIM/],
    [
      "fresh noise",
      "none",
      { scheduler: { sampler: "euler-ancestral" } },
      /without fresh noise, found euler-ancestral/,
    ],
    ["fresh noise of DDIM", "none", { scheduler: { ...ditScheduler, eta: 1 } }, /without fresh noise, found ddim/],
    ["Euler's method of a diffusion", "none", { scheduler: { sampler: "euler" } }, /that of DDIM, .* found euler/],
    ["v", "none", { scheduler: { ...ditScheduler, predictionType: "v_prediction" } }, /predictionType/],
    ["landing beside the list", "none", { timestepSpacing: "linspace" }, /timestepSpacing: .* lands beside it/],
    ["no steps", "none", { numInferenceSteps: 0 }, /numInferenceSteps/],
  ])("%s", (_, cache, change, message) => {
    expect(() => toMultistep(cache, { ...plain, ...change })).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(message) }),
    );
  });

  test("a beta that is the same for all images is one", () => {
    expect(toMultistep(femo({ granularity, beta: [0.1, 0.1] }), plain)).toEqual(
      toMultistep(femo({ granularity, beta: 0.1 }), plain),
    );
  });

  test("what comes out is a sampler", () => {
    const sampler = toMultistep(taylorSeer({ granularity }), plain);
    expect(createSampler(ditScheduler, { sampler, numInferenceSteps: sampler.timesteps.length }).name).toBe(
      "multistep",
    );
  });
});
