import { describe, expect, test } from "vitest";
import {
  createSampler,
  ddim,
  ditScheduler,
  dpmSolver,
  type NamedSampler,
  type SamplerName,
  type SchedulerConfig,
  schedulerFromConfig,
} from "../../src/samplers/index.js";
import { fakeModel, firstLatent, walk } from "./helpers.js";

const dpm = { _class_name: "DPMSolverMultistepScheduler" };
const deis = { _class_name: "DEISMultistepScheduler" };
const euler = { _class_name: "EulerDiscreteScheduler" };

describe("schedulerFromConfig", () => {
  test("what is not given is left to the sampler; foreign keys are ignored", () => {
    const foreign = { _diffusers_version: "0.42.1", skip_prk_steps: true, variance_type: "fixed", flow_shift: 1 };
    expect(schedulerFromConfig({})).toStrictEqual({ sampler: "ddim" });
    expect(schedulerFromConfig(foreign)).toStrictEqual({ sampler: "ddim" });
    expect(schedulerFromConfig({ solver_order: 1, steps_offset: 1 })).toStrictEqual({
      sampler: "ddim",
      stepsOffset: 1,
    });
  });

  test.each<[string, SamplerName]>([
    ["DDIMScheduler", "ddim"],
    ["DDPMScheduler", "ddpm"],
    ["DPMSolverMultistepScheduler", "dpm-solver++"],
    ["UniPCMultistepScheduler", "unipc"],
    ["DEISMultistepScheduler", "deis"],
    ["EulerDiscreteScheduler", "euler"],
    ["EulerAncestralDiscreteScheduler", "euler-ancestral"],
    ["LCMScheduler", "lcm"],
  ])("%s is sampled with %s", (_class_name, sampler) => {
    expect(schedulerFromConfig({ _class_name })).toStrictEqual({ sampler });
  });

  test("reads every key that the scheduler has", () => {
    const json = {
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
      algorithm_type: "dpmsolver++",
      solver_order: 1,
      solver_type: "heun",
      lower_order_final: false,
      euler_at_final: true,
      final_sigmas_type: "sigma_min",
      use_karras_sigmas: true,
      lambda_min_clipped: Number.NEGATIVE_INFINITY,
      use_lu_lambdas: false,
      use_exponential_sigmas: false,
      use_beta_sigmas: false,
      use_flow_sigmas: false,
    };
    const chain = {
      numTrainTimesteps: 2,
      betaStart: 0.1,
      betaEnd: 0.2,
      betaSchedule: "scaled_linear",
      trainedBetas: [0.3, 0.4],
      stepsOffset: 1,
      predictionType: "v_prediction",
      timestepSpacing: "trailing",
      rescaleBetasZeroSnr: true,
    };
    const carried = { ...chain, clipSample: false, clipSampleRange: 2, setAlphaToOne: false };
    expect(schedulerFromConfig({ _class_name: "DDIMScheduler", ...json })).toStrictEqual({
      sampler: "ddim",
      ...carried,
    });
    expect(schedulerFromConfig({ _class_name: "DPMSolverMultistepScheduler", ...json })).toStrictEqual({
      sampler: "dpm-solver++",
      ...carried,
      solverOrder: 1,
      solverType: "heun",
      lowerOrderFinal: false,
      eulerAtFinal: true,
      finalSigmasType: "sigma_min",
      useKarrasSigmas: true,
      useExponentialSigmas: false,
      useBetaSigmas: false,
    });
  });

  test("DPM-Solver++ is that of the SDE by its algorithm, and PNDM the one without Runge-Kutta steps", () => {
    const dpm = { _class_name: "DPMSolverMultistepScheduler", algorithm_type: "sde-dpmsolver++", solver_order: 1 };
    expect(schedulerFromConfig(dpm)).toStrictEqual({ sampler: "dpm-solver++-sde", solverOrder: 1 });
    const pndm = { _class_name: "PNDMScheduler", skip_prk_steps: true, steps_offset: 1 };
    expect(schedulerFromConfig(pndm)).toStrictEqual({ sampler: "pndm", stepsOffset: 1 });
  });

  test("DEIS is read without what the class does not have, and with what other solvers left in its place", () => {
    const left = { algorithm_type: "dpmsolver++", solver_type: "bh2", final_sigmas_type: "zero", euler_at_final: true };
    expect(schedulerFromConfig({ ...deis, ...left, solver_order: 3, lower_order_final: false })).toStrictEqual({
      sampler: "deis",
      solverOrder: 3,
      lowerOrderFinal: false,
    });
    const flow = { use_flow_sigmas: true, prediction_type: "flow_prediction", flow_shift: 3 };
    expect(schedulerFromConfig({ ...deis, ...flow })).toStrictEqual({
      sampler: "deis",
      predictionType: "flow_prediction",
      shift: 3,
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
    [{ _class_name: "FlowMatchHeunDiscreteScheduler" }, /_class_name: found "FlowMatch.*allowed: "DDIMScheduler"/],
    [{ ...dpm, algorithm_type: "dpmsolver" }, /algorithm_type: found "dpmsolver", allowed: "dpmsolver\+\+"/],
    [{ ...dpm, solver_order: 4 }, /solver_order: found 4, allowed: 1, 2, 3/],
    [{ ...dpm, algorithm_type: "sde-dpmsolver++", solver_order: 3 }, /solver_order: found 3, allowed: 1, 2\./],
    [{ ...dpm, lambda_min_clipped: -5.1 }, /lambda_min_clipped: found -5.1, allowed: -Infinity/],
    [{ _class_name: "PNDMScheduler" }, /skip_prk_steps: found none, which is false, allowed: true/],
    [{ _class_name: "PNDMScheduler", skip_prk_steps: false }, /skip_prk_steps: found false, allowed: true/],
    [
      { _class_name: "DDPMScheduler", variance_type: "learned_range" },
      /variance_type: found "learned_range", allowed: "fixed/,
    ],
    [{ ...euler, interpolation_type: "log_linear" }, /interpolation_type: found "log_linear", allowed: "linear"/],
    [{ ...euler, timestep_type: "continuous" }, /timestep_type: found "continuous", allowed: "discrete"/],
    [
      { ...euler, use_karras_sigmas: true, use_beta_sigmas: true },
      /found use_karras_sigmas and use_beta_sigmas, allowed: one/,
    ],
    [{ _class_name: "UniPCMultistepScheduler", thresholding: true }, /thresholding: found true, allowed: false/],
    [{ _class_name: "UniPCMultistepScheduler", use_flow_sigmas: true }, /use_flow_sigmas: found true, allowed: false/],
    [{ ...deis, thresholding: true }, /thresholding: found true, allowed: false/],
    [{ ...deis, solver_order: 4 }, /solver_order: found 4, allowed: 1, 2, 3/],
    [{ ...deis, algorithm_type: "sde-dpmsolver++" }, /algorithm_type: found "sde-dpmsolver\+\+", allowed: "deis"/],
    [
      { ...deis, use_flow_sigmas: true, prediction_type: "flow_prediction", use_beta_sigmas: true },
      /use_beta_sigmas: found true, allowed: false/,
    ],
    [{ _class_name: "LCMScheduler", thresholding: true }, /thresholding: found true, allowed: false/],
    [[], /scheduler config: found \[\], allowed: an object/],
    [null, /scheduler config: found null, allowed: an object/],
  ])("%j is refused", (json, message) => {
    expect(() => schedulerFromConfig(json)).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(message) }),
    );
  });
});

describe("createSampler", () => {
  const run = (sampler: ReturnType<typeof ddim>) => walk(sampler, firstLatent(8), fakeModel).at(-1)?.latent;
  const scheduler: SchedulerConfig = {
    sampler: "ddim",
    betaEnd: 0.01,
    clipSample: false,
    stepsOffset: 1,
  };
  const solver: SchedulerConfig = { sampler: "dpm-solver++", betaEnd: 0.01, solverType: "heun", stepsOffset: 1 };

  test("the default is the model's own sampler, and its settings with the sampler's defaults for the rest", () => {
    const { sampler, ...settings } = scheduler;
    const numInferenceSteps = 6;
    expect(run(createSampler(scheduler, { numInferenceSteps }))).toEqual(run(ddim({ ...settings, numInferenceSteps })));
    const other = createSampler(solver, { numInferenceSteps });
    expect([other.name, other.spacing]).toEqual(["dpm-solver++", "linspace"]);
    expect(run(other)).toEqual(run(dpmSolver({ betaEnd: 0.01, solverType: "heun", numInferenceSteps })));
  });

  test("a request's sampler runs on the same training chain, with settings of its own", () => {
    const other = createSampler(scheduler, { sampler: "dpm-solver++", numInferenceSteps: 6 });
    expect([other.name, other.spacing]).toEqual(["dpm-solver++", "linspace"]);
    expect(run(other)).toEqual(run(dpmSolver({ betaEnd: 0.01, numInferenceSteps: 6 })));
    const back = createSampler(solver, { sampler: "ddim", numInferenceSteps: 6 });
    expect([back.name, back.spacing]).toEqual(["ddim", "leading"]);
    expect(run(back)).toEqual(run(ddim({ betaEnd: 0.01, stepsOffset: 1, numInferenceSteps: 6 })));
  });

  test("spacing and offset carry over to the request's sampler", () => {
    for (const own of [scheduler, solver]) {
      for (const sampler of ["ddim", "dpm-solver++"] as const) {
        const { timesteps } = createSampler({ ...own, timestepSpacing: "leading" }, { sampler, numInferenceSteps: 4 });
        expect(timesteps).toEqual(sampler === "ddim" ? [751, 501, 251, 1] : [801, 601, 401, 201]);
      }
    }
  });

  test("a request's spacing comes before the model's, Karras' levels too", () => {
    const choice = { timestepSpacing: "trailing", numInferenceSteps: 4 } as const;
    const karras: SchedulerConfig = { sampler: "dpm-solver++", useKarrasSigmas: true, timestepSpacing: "leading" };
    expect(createSampler(karras, { numInferenceSteps: 4 }).spacing).toBe("karras");
    for (const model of [scheduler, karras, ditScheduler]) {
      const { spacing, timesteps } = createSampler(model, choice);
      expect([spacing, timesteps]).toEqual(["trailing", [999, 749, 499, 249]]);
    }
  });

  test("Lu's lambdas are a spacing, which a request's goes before, and which does not carry over to DDIM", () => {
    const config = { _class_name: "DPMSolverMultistepScheduler", timestep_spacing: "leading", use_lu_lambdas: true };
    const lu = schedulerFromConfig(config);
    expect(lu).toStrictEqual({ sampler: "dpm-solver++", timestepSpacing: "lambda" });
    const spacing = (choice: object) => createSampler(lu, { numInferenceSteps: 4, ...choice }).spacing;
    expect(spacing({})).toBe("lambda");
    expect(spacing({ timestepSpacing: "trailing" })).toBe("trailing");
    expect(spacing({ sampler: "ddim" })).toBe("leading");
    const karras: SchedulerConfig = { sampler: "dpm-solver++", useKarrasSigmas: true };
    expect(createSampler(karras, { numInferenceSteps: 4, timestepSpacing: "lambda" }).spacing).toBe("lambda");
  });

  test("a spacing that the sampler does not have is refused, and the one that has it named", () => {
    expect(() => createSampler(scheduler, { numInferenceSteps: 4, timestepSpacing: "lambda" })).toThrow(
      expect.objectContaining({
        code: "E_OPTION",
        message: expect.stringMatching(
          /timestepSpacing: expected one of leading.* dit .*dpm-solver\+\+.* found lambda/,
        ),
      }),
    );
  });

  test("an unknown sampler is refused by name", () => {
    const sampler = "heun" as NamedSampler;
    expect(() => createSampler(scheduler, { sampler, numInferenceSteps: 4 })).toThrow(
      expect.objectContaining({
        code: "E_OPTION",
        message: expect.stringMatching(
          /^sampler: expected one of ddim, .*pndm.*, or a solver of the sampler multistep, found "heun"\.$/,
        ),
      }),
    );
  });
});
