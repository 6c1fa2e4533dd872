import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  type DdimConfig,
  ddim,
  ddimDefaults,
  ditScheduler,
  schedulerFromConfig,
  TorchGenerator,
} from "../../src/samplers/index.js";

interface Golden {
  timesteps: { spacing: "leading" | "trailing" | "linspace"; steps: number; offset: number; timesteps: number[] }[];
  trajectories: { config: Record<string, unknown>; steps: number; latents: number[][] }[];
}

const golden: Golden = JSON.parse(readFileSync(new URL("../goldens/ddim.json", import.meta.url), "utf8"));

const latentConfig = { ...ddimDefaults, clipSample: false };
const configs: [string, DdimConfig][] = (["leading", "trailing", "linspace", "dit"] as const).flatMap((spacing) =>
  (["epsilon", "v_prediction", "sample"] as const).map((type): [string, DdimConfig] => [
    `${spacing}, ${type}`,
    { ...latentConfig, timestepSpacing: spacing, predictionType: type, numInferenceSteps: 10 },
  ]),
);

function relativeError(found: Float32Array, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length);
  return Math.max(...found.map((v, k) => Math.abs(v - (expected[k] ?? 0)) / Math.max(1, Math.abs(expected[k] ?? 0))));
}

describe("against diffusers' DDIMScheduler", () => {
  test.each(golden.timesteps)(
    "timesteps: $spacing, $steps steps, offset $offset",
    ({ spacing, steps, offset, ...g }) => {
      const build = () => ddim({ numInferenceSteps: steps, timestepSpacing: spacing, stepsOffset: offset });
      if (Math.max(...g.timesteps) > 999) {
        expect(build).toThrow(/stepsOffset: 1000 steps with offset 1/); // diffusers fails later, at its first step
      } else {
        expect(build().timesteps).toEqual(g.timesteps);
      }
    },
  );

  test.each(golden.trajectories)("every step of $config, $steps steps", ({ config, steps, latents }) => {
    const sampler = ddim({ ...schedulerFromConfig(config), numInferenceSteps: steps });
    let x: Float32Array = Float32Array.from({ length: 6 }, (_, k) => 1.5 * Math.sin(k + 1));
    expect(latents).toHaveLength(sampler.timesteps.length);
    latents.forEach((expected, i) => {
      const m = x.map((v, k) => 0.5 * Math.sin(3 * v + i) + 0.3 * Math.cos(k));
      // measured: 2.3e-6, from ᾱ in float32 there
      expect(relativeError(sampler.step(i, x, m), expected)).toBeLessThan(5e-6);
      x = Float32Array.from(expected);
    });
  });
});

describe("the DiT spacing", () => {
  test("50 steps are round(i·999/49), 999 down to 0", () => {
    const { timesteps } = ddim({ ...ditScheduler, numInferenceSteps: 50 });
    expect(timesteps).toEqual(Array.from({ length: 50 }, (_, i) => Math.round(((49 - i) * 999) / 49)));
  });

  test("every count from 1 to 1000 is strictly decreasing from 999 to 0; one step is [0]", () => {
    expect(ddim({ ...ditScheduler, numInferenceSteps: 1 }).timesteps).toEqual([0]);
    for (let n = 2; n <= 1000; n++) {
      const { timesteps } = ddim({ ...ditScheduler, numInferenceSteps: n });
      expect(timesteps).toHaveLength(n);
      expect([timesteps[0], timesteps[n - 1]]).toEqual([999, 0]);
      expect(timesteps.every((t, i) => i === 0 || t < (timesteps[i - 1] as number))).toBe(true);
    }
  });

  test("a step lands on the noise level of the next timestep, the last on none", () => {
    const sampler = ddim({ ...ditScheduler, numInferenceSteps: 7, setAlphaToOne: false });
    // With x₀ = 0, x = √(1 − ᾱ)·ε: feeding ε = 1 keeps x at the level of its timestep.
    let x: Float32Array = Float32Array.of(level(sampler.timesteps[0]));
    sampler.timesteps.forEach((_, i) => {
      x = sampler.step(i, x, Float32Array.of(1));
      expect(x[0]).toBeCloseTo(level(sampler.timesteps[i + 1]), 5);
    });
  });
});

/** √(1 − ᾱ_t) of the linear chain; 0 beyond its end. */
function level(t: number | undefined): number {
  let alphaBar = 1;
  for (let s = 0; s <= (t ?? -1); s++) alphaBar *= 1 - (1e-4 + ((0.02 - 1e-4) * s) / 999);
  return Math.sqrt(1 - alphaBar);
}

test.each([1, 2, 10, 50])("a perfect noise model of a point mass recovers the point in %i steps", (n) => {
  const sampler = ddim({ ...ditScheduler, numInferenceSteps: n });
  const point = new TorchGenerator(1).randn([64]);
  let x = new TorchGenerator(2).randn([64]);
  sampler.timesteps.forEach((t, i) => {
    const b = level(t);
    const a = Math.sqrt(1 - b * b);
    x = sampler.step(
      i,
      x,
      x.map((v, k) => (v - a * (point[k] as number)) / b),
    );
  });
  expect(relativeError(x, point)).toBeLessThan(1e-4);
});

describe.each(configs)("%s", (_, config) => {
  const sampler = ddim(config);
  const [x, y, m, w] = [1, 2, 3, 4].map((seed) => new TorchGenerator(seed).randn([32])) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];

  test("unclipped steps are linear in latent and model output", () => {
    const mix = (p: Float32Array, q: Float32Array) => p.map((v, k) => 2 * v - 0.5 * (q[k] as number));
    for (let i = 0; i < 10; i++) {
      const separate = mix(sampler.step(i, x, m), sampler.step(i, y, w));
      expect(relativeError(sampler.step(i, mix(x, y), mix(m, w)), separate)).toBeLessThan(1e-5);
    }
  });

  test("a step is pure: inputs stay, and walking it again gives the same", () => {
    const [xBefore, mBefore] = [x.slice(), m.slice()];
    const first = sampler.step(4, x, m);
    sampler.step(7, x, m);
    expect(sampler.step(4, x, m)).toEqual(first);
    expect([x, m]).toEqual([xBefore, mBefore]);
  });
});

test("trailing spacing has n timesteps for every n, within the chain", () => {
  for (let n = 1; n <= 1000; n++) {
    const { timesteps } = ddim({ ...latentConfig, timestepSpacing: "trailing", numInferenceSteps: n });
    expect(timesteps).toHaveLength(n);
    expect(timesteps[0]).toBe(999);
    expect(timesteps[n - 1]).toBeGreaterThanOrEqual(0);
  }
});

describe("errors", () => {
  test.each([0, -1, 2.5, 1001, Number.NaN])("numInferenceSteps %s is refused", (numInferenceSteps) => {
    expect(() => ddim({ numInferenceSteps })).toThrow(/numInferenceSteps: expected an integer from 1 to 1000/);
  });

  test.each([
    { betaStart: 0 },
    { betaEnd: 1 },
    { clipSampleRange: 0 },
    { stepsOffset: -1 },
    { numTrainTimesteps: 0 },
    { trainedBetas: [0.1, 0.2] },
    { predictionType: "flow" as "sample" },
  ])("%j is refused by name", (option) => {
    const name = Object.keys(option)[0] as string;
    expect(() => ddim({ numInferenceSteps: 1, ...option })).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringContaining(`${name}: expected`) }),
    );
  });

  test("noise prediction without any signal is refused, unless the timestep is not sampled", () => {
    const config = { ...latentConfig, rescaleBetasZeroSnr: true, numInferenceSteps: 10 };
    expect(() => ddim({ ...config, timestepSpacing: "trailing" })).toThrow(/timestep 999 has no signal/);
    expect(() => ddim({ ...config, timestepSpacing: "leading" })).not.toThrow();
  });

  test("step refuses an index out of range and lengths that differ", () => {
    const sampler = ddim({ numInferenceSteps: 5 });
    expect(() => sampler.step(5, new Float32Array(4), new Float32Array(4))).toThrow(/index from 0 to 4, found 5/);
    expect(() => sampler.step(0, new Float32Array(4), new Float32Array(8))).toThrow(/latent, 4, found 8/);
  });
});

describe("schedulerFromConfig", () => {
  test("an empty config is diffusers' defaults; foreign keys are ignored", () => {
    expect(schedulerFromConfig({})).toEqual(ddimDefaults);
    expect(schedulerFromConfig({ _diffusers_version: "0.42.1", skip_prk_steps: true, variance_type: "fixed" })).toEqual(
      ddimDefaults,
    );
  });

  test("reads every key", () => {
    const json = {
      _class_name: "PNDMScheduler",
      num_train_timesteps: 2,
      beta_start: 0.1,
      beta_end: 0.2,
      beta_schedule: "scaled_linear",
      trained_betas: [0.3, 0.4],
      clip_sample: false,
      clip_sample_range: 2,
      set_alpha_to_one: false,
      steps_offset: 1,
      prediction_type: "v_prediction",
      thresholding: false,
      timestep_spacing: "trailing",
      rescale_betas_zero_snr: true,
    };
    expect(schedulerFromConfig(json)).toEqual({
      numTrainTimesteps: 2,
      betaStart: 0.1,
      betaEnd: 0.2,
      betaSchedule: "scaled_linear",
      trainedBetas: [0.3, 0.4],
      clipSample: false,
      clipSampleRange: 2,
      setAlphaToOne: false,
      stepsOffset: 1,
      predictionType: "v_prediction",
      timestepSpacing: "trailing",
      rescaleBetasZeroSnr: true,
    });
  });

  test.each<[unknown, RegExp]>([
    [{ prediction_type: "flow" }, /prediction_type: found "flow", allowed: "epsilon", "v_prediction", "sample"/],
    [{ thresholding: true }, /thresholding: found true, allowed: false/],
    [{ beta_schedule: "sigmoid" }, /beta_schedule: found "sigmoid", allowed: "linear"/],
    [{ num_train_timesteps: "1000" }, /num_train_timesteps: found "1000", allowed: a value of type/],
    [{ num_train_timesteps: 0 }, /num_train_timesteps: found 0, allowed: a number from 1/],
    [{ trained_betas: [0.1, 2] }, /trained_betas\.1: found 2, allowed: a number below 1/],
    [{ trained_betas: [0.1, 0.2] }, /trained_betas: found 2 values, allowed: as many as num_train_timesteps, 1000/],
    [{ _class_name: "FlowMatchEulerDiscreteScheduler" }, /_class_name: found "FlowMatch.*allowed: "DDIMScheduler"/],
    [[], /scheduler config: found \[\], allowed: an object/],
    [null, /scheduler config: found null, allowed: an object/],
  ])("%j is refused", (json, message) => {
    expect(() => schedulerFromConfig(json)).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(message) }),
    );
  });
});
