import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  createSampler,
  type DpmSolverConfig,
  ddim,
  ditScheduler,
  dpmSolver,
  type SamplerState,
  schedulerFromConfig,
  timestepSpacings,
} from "../../src/samplers/index.js";
import { alphaBar, fakeModel, firstLatent, noise, relativeError, walk } from "./helpers.js";

interface Golden {
  timesteps: { config: Record<string, unknown>; steps: number; timesteps: number[] }[];
  trajectories: { config: Record<string, unknown>; steps: number; latents: number[][] }[];
}

const golden: Golden = JSON.parse(readFileSync(new URL("../goldens/dpm-solver.json", import.meta.url), "utf8"));

const solverOf = (config: Record<string, unknown>, numInferenceSteps: number) =>
  createSampler(schedulerFromConfig({ _class_name: "DPMSolverMultistepScheduler", ...config }), {
    sampler: "dpm-solver++",
    numInferenceSteps,
  });

// Measured: 3.7e-6 and, with Karras' levels, 5.5e-5: they are made from that of timestep 0, which diffusers has in
// float32, 8e-5 beside (1 − ᾱ cancels there).
const toleranceOf = (config: Record<string, unknown>) =>
  config.use_karras_sigmas || config.use_lu_lambdas ? 1e-4 : 1e-5;

describe("against diffusers' DPMSolverMultistepScheduler", () => {
  test.each(golden.timesteps)("timesteps of $config, $steps steps", ({ config, steps, timesteps }) => {
    const found = solverOf(config, steps).timesteps;
    // float32 levels there: of spacing lambda up to one in a list lies on the other side of a half.
    const other = found.flatMap((t, i) => (t === timesteps[i] ? [] : [Math.abs(t - (timesteps[i] as number))]));
    expect(found).toHaveLength(timesteps.length);
    expect(config.use_lu_lambdas ? [[], [1]] : [[]]).toContainEqual(other);
  });

  test.each(golden.trajectories)("every step of $config, $steps steps", ({ config, steps, latents }) => {
    const sampler = solverOf(config, steps);
    expect(sampler.timesteps).toHaveLength(latents.length);
    let state: SamplerState = { latent: firstLatent(4) };
    latents.forEach((expected, i) => {
      state = sampler.step(i, state, fakeModel(state.latent, i));
      expect(relativeError(state.latent, expected)).toBeLessThan(toleranceOf(config));
      state = { ...state, latent: Float32Array.from(expected) };
    });
  });

  test.each(golden.trajectories)("the whole of $config, $steps steps", ({ config, steps, latents }) => {
    const states = walk(solverOf(config, steps), firstLatent(4), fakeModel);
    expect(relativeError(states[steps]?.latent as Float32Array, latents[steps - 1] as number[])).toBeLessThan(
      toleranceOf(config),
    );
  });
});

describe("order 1 is DDIM", () => {
  const models = ["epsilon", "v_prediction", "sample"] as const;
  test.each(models.flatMap((type) => [3, 10, 50].map((n) => [type, n] as const)))("%s, %i steps", (type, n) => {
    const config = { ...ditScheduler, predictionType: type, numInferenceSteps: n };
    const solver = dpmSolver({ ...config, solverOrder: 1 });
    const reference = ddim(config);
    expect(solver.timesteps).toEqual(reference.timesteps);
    const expected = walk(reference, noise(1, 16), fakeModel);
    walk(solver, noise(1, 16), fakeModel).forEach(({ latent }, i) => {
      expect(relativeError(latent, expected[i]?.latent as Float32Array)).toBeLessThan(1e-5);
    });
  });
});

/**
 * Data with the normal distribution N(0, s²) has x₀(x, t) = √ᾱ·s²/v·x for the variance v = ᾱ·s² + 1 − ᾱ of x, and the
 * solution x(t) = x(T)·√(v_t/v_T).
 */
describe("on a linear equation with known solution", () => {
  const S2 = 0.25;
  const variance = (t: number) => alphaBar(t) * S2 + 1 - alphaBar(t);

  /** Relative error at timestep 199, from 999, in steps of `stride` timesteps. */
  const errorOf = (stride: number, config: Partial<DpmSolverConfig>): number => {
    const sampler = dpmSolver({ timestepSpacing: "trailing", ...config, numInferenceSteps: 1000 / stride });
    const end = sampler.timesteps.indexOf(199);
    const epsilon = (x: Float32Array, i: number) => {
      const t = sampler.timesteps[i] as number;
      return x.map((v) => (Math.sqrt(1 - alphaBar(t)) / variance(t)) * v);
    };
    const { latent } = walk(sampler, Float32Array.of(1), epsilon, end)[end] as SamplerState;
    return Math.abs((latent[0] as number) / Math.sqrt(variance(199) / variance(999)) - 1);
  };

  test.each<[order: 1 | 2, type: "midpoint" | "heun", gain: number]>([
    [1, "midpoint", 2],
    [2, "midpoint", 4],
    [2, "heun", 4],
  ])("order %i, %s: halving the steps divides the error by %d", (solverOrder, solverType, gain) => {
    const [coarse, middle, fine] = [20, 10, 5].map((stride) => errorOf(stride, { solverOrder, solverType })) as [
      number,
      number,
      number,
    ];
    // measured: 1.995 and 1.998; 4.06 and 4.03; 4.13 and 4.09
    for (const ratio of [coarse / middle, middle / fine]) expect(Math.abs(ratio / gain - 1)).toBeLessThan(0.05);
  });
});

test.each([2, 7, 50])(
  "spacing lambda: %i steps go from the noisiest timestep to the cleanest, even in log-SNR",
  (n) => {
    const { leaps, timesteps } = dpmSolver({ timestepSpacing: "lambda", numInferenceSteps: n });
    expect([timesteps[0], timesteps.at(-1)]).toEqual([999, 0]);
    const lambdas = leaps.map(({ from }) => Math.log(from.signal / from.noise));
    const total = (lambdas.at(-1) as number) - (lambdas[0] as number);
    for (let i = 1; i < n; i++) {
      expect((lambdas[i] as number) - (lambdas[i - 1] as number)).toBeCloseTo(total / (n - 1), 9);
    }
    const lambda = (t: number | undefined) => Math.log(alphaBar(t) / (1 - alphaBar(t))) / 2;
    expect(total).toBeCloseTo(lambda(0) - lambda(999), 9);
  },
);

describe("walking again", () => {
  const sampler = dpmSolver({ numInferenceSteps: 20 });
  const states = walk(sampler, noise(1, 32), fakeModel);

  test("every step from its stored state gives the same bytes, in any order", () => {
    for (const i of [19, 3, 7, 0, 12, 3]) {
      const state = states[i] as SamplerState;
      expect(sampler.step(i, state, fakeModel(state.latent, i))).toStrictEqual(states[i + 1]);
    }
  });

  test("a state survives being copied as plain data, and is not changed", () => {
    const stored = structuredClone(states[5] as SamplerState);
    let state = stored;
    for (let i = 5; i < 20; i++) state = sampler.step(i, state, fakeModel(state.latent, i));
    expect(state).toStrictEqual(states[20]);
    expect(stored).toStrictEqual(states[5]);
  });

  test("without the previous x₀ a step is of first order, as at the start", () => {
    const { latent } = states[5] as SamplerState;
    const first = dpmSolver({ numInferenceSteps: 20, solverOrder: 1 });
    const m = fakeModel(latent, 5);
    expect(sampler.step(5, { latent }, m).latent).toEqual(first.step(5, { latent }, m).latent);
    expect(sampler.step(5, { latent }, m).latent).not.toEqual(states[6]?.latent);
  });
});

test("steps are finite to the last, also where it has no length", () => {
  const spacings = timestepSpacings.map((timestepSpacing) => ({ timestepSpacing }));
  for (const spacing of [...spacings, { useKarrasSigmas: true }]) {
    for (const solverType of ["midpoint", "heun"] as const) {
      for (const rescaleBetasZeroSnr of [false, true]) {
        const options = { ...spacing, solverType, rescaleBetasZeroSnr, lowerOrderFinal: false };
        const sampler = dpmSolver({ ...options, finalSigmasType: "sigma_min", numInferenceSteps: 10 });
        const { latent } = walk(sampler, noise(1, 8), fakeModel)[10] as SamplerState;
        expect([options, latent.every(Number.isFinite)]).toEqual([options, true]);
      }
    }
  }
});

describe("errors", () => {
  test.each([
    { numInferenceSteps: 0 },
    { solverOrder: 4 as 2 },
    { solverType: "bh2" as "heun" },
    { finalSigmasType: "one" as "zero" },
    { stepsOffset: -1 },
    { betaStart: 0 },
    { timestepSpacing: "even" as "dit" },
  ])("%j is refused by name", (option) => {
    const name = Object.keys(option)[0] as string;
    expect(() => dpmSolver({ numInferenceSteps: 2, ...option })).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringContaining(`${name}: expected`) }),
    );
  });

  test.each(["leading", "linspace"] as const)("as many steps as timesteps do not fit with %s spacing", (spacing) => {
    const build = (numInferenceSteps: number) => dpmSolver({ numInferenceSteps, timestepSpacing: spacing });
    expect(() => build(1000)).toThrow(/numInferenceSteps: expected at most 999 .* found 1000/);
    expect(new Set(build(999).timesteps).size).toBe(999);
  });

  test("leading strides of 1 that begin inside the chain are refused", () => {
    const build = (numInferenceSteps: number) => dpmSolver({ numInferenceSteps, timestepSpacing: "leading" });
    expect(() => build(500)).toThrow(/numInferenceSteps: expected at most 499, or 999/);
    expect(build(499).notes).toEqual([]);
    expect(build(333).notes.join()).toMatch("331 timesteps late");
  });

  test("a previous x₀ of another length is refused", () => {
    const [latent, before] = [new Float32Array(4), new Float32Array(2)];
    const sampler = dpmSolver({ numInferenceSteps: 5 });
    expect(() => sampler.step(1, { latent, history: [before] }, latent)).toThrow(
      /history of at most 1, each as long as the latent, 4, found 1, of the lengths 2/,
    );
  });
});
