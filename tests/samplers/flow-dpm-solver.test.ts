import { describe, expect, test } from "vitest";
import {
  createSampler,
  type FlowConfig,
  flowDpmSolver,
  flowEuler,
  type SamplerChoice,
  type SchedulerConfig,
  samplersOf,
  schedulerFromConfig,
} from "../../src/samplers/index.js";
import { flowGolden, fluxScheduler, modelTimes, sigmasOf, type Walk } from "./flow-helpers.js";
import { fakeModel, noise, relativeError, walk } from "./helpers.js";

const FLOW = { _class_name: "DPMSolverMultistepScheduler", use_flow_sigmas: true, prediction_type: "flow_prediction" };

const walked = (sampler: ReturnType<typeof createSampler>, { first, velocities }: Walk): Float32Array[] =>
  walk(sampler, Float32Array.from(first), (_, i) => Float32Array.from(velocities[i] as number[]))
    .slice(1)
    .map(({ latent }) => latent);

describe("against diffusers' DPMSolverMultistepScheduler of flows", () => {
  test.each(flowGolden.solver)("$config, $tokens tokens, $steps steps", (golden) => {
    const { config, tokens, steps } = golden;
    const sampler = createSampler(schedulerFromConfig({ ...FLOW, ...config }), {
      numInferenceSteps: steps,
      ...(tokens !== null && { imageTokens: tokens }),
    });
    expect([sampler.name, sampler.spacing]).toEqual(["dpm-solver++", "linspace"]);
    expect(sigmasOf(sampler)).toEqual(golden.sigmas.map(Math.fround));
    expect(sampler.timesteps).toEqual(modelTimes(golden.timesteps));
    walked(sampler, golden).forEach((latent, i) => {
      expect(relativeError(latent, golden.latents[i] as number[])).toBeLessThan(2e-6); // coefficients are float32 there
    });
  });

  test.each(flowGolden.solverOnEuler)("on the levels of FLUX: $config, $steps steps", (golden) => {
    const { config, tokens, steps } = golden;
    const steps2m = { solverType: config.solver_type, lowerOrderFinal: config.lower_order_final };
    const given = Object.fromEntries(Object.entries(steps2m).filter(([, value]) => value !== undefined));
    const scheduler = { ...fluxScheduler, ...given, sampler: "dpm-solver++" } as SchedulerConfig;
    const sampler = createSampler(scheduler, { numInferenceSteps: steps, imageTokens: tokens as number });
    walked(sampler, golden).forEach((latent, i) => {
      expect(relativeError(latent, golden.latents[i] as number[])).toBeLessThan(2e-6);
    });
  });
});

test("order 1 is Euler's method", () => {
  const config: FlowConfig = { predictionType: "flow_prediction", shift: 2, timestepSpacing: "trailing" };
  const chosen = { numInferenceSteps: 12 };
  const [solver, euler] = [flowDpmSolver({ ...config, solverOrder: 1 }, chosen), flowEuler(config, chosen)];
  expect([solver.timesteps, solver.leaps]).toEqual([euler.timesteps, euler.leaps]);
  const wanted = walk(euler, noise(1, 32), fakeModel);
  walk(solver, noise(1, 32), fakeModel).forEach(({ latent }, i) => {
    expect(relativeError(latent, wanted[i]?.latent as Float32Array)).toBeLessThan(1e-5);
  });
});

/** Data with the distribution N(0, s²) has v = (σ − (1 − σ)·s²)/u·x for u = (1 − σ)²·s² + σ², and x grows as √u. */
test("order 2 on a linear equation with known solution: halving the steps divides the error by four", () => {
  const S2 = 0.25;
  const variance = (sigma: number) => (1 - sigma) ** 2 * S2 + sigma ** 2;
  const errorOf = (n: number, solverOrder: 1 | 2): number => {
    // From σ = 0.9, where λ is finite, to 0.1.
    const sigmas = Array.from({ length: n + 1 }, (_, i) => 0.9 - (0.8 * i) / n);
    const config = { predictionType: "flow_prediction", solverOrder } as const;
    const sampler = flowDpmSolver(config, { numInferenceSteps: n + 1, sigmas });
    const velocity = (x: Float32Array, i: number) => {
      const sigma = sampler.leaps[i]?.from.noise as number;
      return x.map((value) => ((sigma - (1 - sigma) * S2) / variance(sigma)) * value);
    };
    const found = walk(sampler, Float32Array.of(1), velocity, n)[n]?.latent[0] as number;
    return Math.abs(found / Math.sqrt(variance(0.1) / variance(0.9)) - 1);
  };
  for (const order of [1, 2] as const) {
    const [coarse, fine] = [errorOf(20, order), errorOf(40, order)] as [number, number];
    expect(Math.abs(Math.log2(coarse / fine) - order)).toBeLessThan(0.25);
  }
});

describe("chosen for another model", () => {
  const create = (scheduler: SchedulerConfig, choice: Partial<SamplerChoice> = {}) =>
    createSampler(scheduler, { numInferenceSteps: 6, imageTokens: 1024, ...choice });

  test("it has the levels that Euler's method has there, shifted by the image's size, and its own on request", () => {
    const [own, solver] = [create(fluxScheduler), create(fluxScheduler, { sampler: "dpm-solver++" })];
    expect([solver.name, solver.spacing]).toEqual(["dpm-solver++", "trailing"]);
    expect([solver.timesteps, solver.leaps]).toEqual([own.timesteps, own.leaps]);
    const other = create(fluxScheduler, { sampler: "dpm-solver++", timestepSpacing: "linspace" });
    expect(other.leaps[0]?.from.noise).toBeLessThan(1);
    expect(sigmasOf(create(fluxScheduler, { sampler: "dpm-solver++", sigmas: [1, 0.8, 0.6, 0.4, 0.2, 0.1] }))).toEqual(
      sigmasOf(create(fluxScheduler, { sampler: "euler", sigmas: [1, 0.8, 0.6, 0.4, 0.2, 0.1] })),
    );
  });

  test("steps are finite from mere noise to the last", () => {
    for (const solverType of ["midpoint", "heun"]) {
      for (const n of [1, 2, 3, 20]) {
        for (const shift of [undefined, 0.2]) {
          // Shifted by 0.2 the first level is above 1 in float32.
          const own = shift === undefined ? {} : { shift, useDynamicShifting: false };
          const scheduler = { ...fluxScheduler, ...own, sampler: "dpm-solver++", solverType, lowerOrderFinal: false };
          const sampler = create(scheduler as SchedulerConfig, { numInferenceSteps: n });
          const states = walk(sampler, noise(1, 8), fakeModel);
          expect(states.every(({ latent }) => latent.every(Number.isFinite))).toBe(true);
        }
      }
    }
  });

  test("Euler's method takes over its shift", () => {
    const scheduler = schedulerFromConfig({ ...FLOW, flow_shift: 3 });
    expect(scheduler).toStrictEqual({ sampler: "dpm-solver++", predictionType: "flow_prediction", shift: 3 });
    expect(create(scheduler, { sampler: "euler" }).leaps).toEqual(
      flowEuler({ predictionType: "flow_prediction", shift: 3 }, { numInferenceSteps: 6 }).leaps,
    );
  });

  test("which samplers there are depends on the model", () => {
    expect(samplersOf("flow")).toEqual(["euler", "dpm-solver++", "deis"]);
    expect(samplersOf("diffusion")).toEqual([
      ...[
        "ddim",
        "dpm-solver++",
        "dpm-solver++-sde",
        "unipc",
        "deis",
        "pndm",
        "euler",
        "euler-ancestral",
        "ddpm",
        "lcm",
      ],
    ]);
  });
});

describe("errors", () => {
  test.each<[object, RegExp]>([
    [{ prediction_type: "epsilon" }, /prediction_type: found "epsilon", allowed: "flow_prediction"/],
    [{ prediction_type: undefined }, /prediction_type: found none, allowed beside use_flow_sigmas: "flow_prediction"/],
    [{ use_flow_sigmas: false }, /prediction_type: found "flow_prediction", allowed: "epsilon"/],
    [{ use_karras_sigmas: true }, /use_karras_sigmas: found true, allowed: false/],
    [{ final_sigmas_type: "sigma_min" }, /final_sigmas_type: found "sigma_min", allowed: "zero"/],
    [{ algorithm_type: "sde-dpmsolver++" }, /algorithm_type: found "sde-dpmsolver\+\+", allowed: "dpmsolver\+\+"/],
    [{ solver_order: 4 }, /solver_order: found 4, allowed: 1, 2, 3/],
    [{ flow_shift: -1 }, /flow_shift: found -1, allowed: a number above 0/],
  ])("a config with %j is refused", (change, message) => {
    expect(() => schedulerFromConfig({ ...FLOW, ...change })).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(message) }),
    );
  });

  test("settings out of range are refused by name", () => {
    const build = (config: object) =>
      flowDpmSolver({ predictionType: "flow_prediction", ...config }, { numInferenceSteps: 4 });
    expect(() => build({ solverOrder: 4 })).toThrow(/solverOrder: expected 1, 2 or 3, found 4/);
    expect(() => build({ solverType: "bh2" })).toThrow(/solverType: expected one of midpoint, heun, found bh2/);
  });
});
