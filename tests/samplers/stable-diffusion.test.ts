import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  createSampler,
  noised,
  type Sampler,
  type SamplerState,
  type SchedulerConfig,
  sampleRange,
  schedulerFromConfig,
  TorchGenerator,
} from "../../src/samplers/index.js";
import { fakeModel, relativeError } from "./helpers.js";

interface Golden {
  readonly config: { readonly _class_name: string; readonly [key: string]: unknown };
  readonly steps: number;
  /** The first step of a run that begins late. */
  readonly begin: number;
  readonly eta?: number;
  readonly first: number[];
  readonly timesteps: number[];
  readonly sigmas?: number[];
  readonly latents: number[][];
}

const golden: Golden[] = JSON.parse(readFileSync(new URL("../goldens/samplers.json", import.meta.url), "utf8"));

function samplerOf({ config, steps, eta, begin }: Golden): Sampler {
  const scheduler = { ...schedulerFromConfig(config), ...(eta !== undefined && { eta }) };
  return sampleRange(createSampler(scheduler, { numInferenceSteps: steps }), begin);
}

const about = ({ config, steps, begin, eta }: Golden): string =>
  JSON.stringify({ ...config, steps, ...(begin > 0 && { begin }), ...(eta !== undefined && { eta }) });

const seen = (sampler: Sampler, latent: Float32Array, i: number): Float32Array =>
  latent.map((x) => x * sampler.inputScale(i));

// float32 there: levels between timesteps lie in their logarithm, and from a level of 4096 digits of x₀ are lost.
const isBetween = ({ config }: Golden) =>
  ["karras", "exponential", "beta"].some((name) => config[`use_${name}_sigmas`] === true);
const toleranceOf = (run: Golden) =>
  run.config.rescale_betas_zero_snr && run.config._class_name.startsWith("Euler") ? 3e-4 : 1e-4; // measured: 1.9e-4, 8e-5

describe("against diffusers' schedulers of Stable Diffusion", () => {
  test.each(golden.map((run) => [about(run), run] as const))("%s", (_, run) => {
    const sampler = samplerOf(run);
    const unit = run.config.use_flow_sigmas ? 1000 : 1; // by which pipelines divide timesteps of a flow
    const deviations = sampler.timesteps.map((t, i) => Math.abs(t - (run.timesteps[i] as number) / unit));
    const isCutOff = isBetween(run) && !run.sigmas && !run.config.use_karras_sigmas;
    expect(deviations).toHaveLength(run.timesteps.length);
    expect(deviations[0]).toBeLessThanOrEqual(isCutOff ? 1 : 0.002); // see solverStops
    expect(Math.max(0, ...deviations.slice(1))).toBeLessThan(run.sigmas && isBetween(run) ? 0.002 : 1e-5);
    const levels = [...sampler.leaps.map(({ from }) => from.noise), sampler.leaps.at(-1)?.to.noise as number];
    const sigmas = run.sigmas?.slice(run.begin) ?? levels;
    expect(relativeError(Float32Array.from(levels), sigmas)).toBeLessThan(
      run.config.rescale_betas_zero_snr ? 1e-3 : 1e-4,
    );

    const generator = new TorchGenerator(3);
    const noise = generator.randn([4]);
    const clean = Float32Array.from({ length: 4 }, (_, k) => 0.5 * Math.cos(k));
    const first = run.begin > 0 ? noised(sampler, 0, clean, noise) : noise.map((x) => x * sampler.initNoiseSigma);
    expect(relativeError(first, run.first)).toBeLessThan(1e-5);
    let state: SamplerState = { latent: Float32Array.from(run.first) };
    run.latents.forEach((expected, i) => {
      const fresh = sampler.draws?.(i) ? generator.randn([4]) : undefined;
      state = sampler.step(i, state, fakeModel(seen(sampler, state.latent, i), i), fresh);
      expect(relativeError(state.latent, expected)).toBeLessThan(toleranceOf(run));
      state = { ...state, latent: Float32Array.from(expected) };
    });
  });
});

describe("the scheduler of SDXL", () => {
  const config = {
    ...{ _class_name: "EulerDiscreteScheduler", beta_end: 0.012, beta_schedule: "scaled_linear", beta_start: 0.00085 },
    ...{ clip_sample: false, interpolation_type: "linear", num_train_timesteps: 1000, prediction_type: "epsilon" },
    ...{ sample_max_value: 1.0, set_alpha_to_one: false, skip_prk_steps: true, steps_offset: 1 },
    ...{ timestep_spacing: "leading", trained_betas: null, use_karras_sigmas: false },
  };
  const sdxl = schedulerFromConfig(config);

  test("50 steps go from 981 to 1, from a noise level of 13.1204", () => {
    const { timesteps, leaps, initNoiseSigma } = createSampler(sdxl, { numInferenceSteps: 50 });
    expect(timesteps).toEqual(Array.from({ length: 50 }, (_, i) => 981 - 20 * i));
    expect(leaps[0]?.from.noise).toBeCloseTo(13.1204, 4);
    expect(initNoiseSigma).toBeCloseTo(13.1585, 4);
  });

  test("chain, offset and clipping carry over to DDIM, which then draws the same", () => {
    const ddim = createSampler(sdxl, { sampler: "ddim", numInferenceSteps: 20 });
    const euler = createSampler(sdxl, { numInferenceSteps: 20 });
    expect(ddim.timesteps).toEqual(euler.timesteps);
    const noise = new TorchGenerator(1).randn([32]);
    let x: SamplerState = { latent: noise };
    let y: SamplerState = { latent: noise.map((v) => v * euler.initNoiseSigma) };
    for (let i = 0; i < 19; i++) {
      x = ddim.step(i, x, fakeModel(x.latent, i));
      y = euler.step(i, y, fakeModel(seen(euler, y.latent, i), i));
    }
    expect(relativeError(seen(euler, y.latent, 19), x.latent)).toBeLessThan(1e-4);
  });
});

describe("one number through five steps, by a model of its own", () => {
  const chain = { beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012 };
  const run = (name: string, config: object, first: Float32Array, draw?: () => Float32Array): Float32Array => {
    const scheduler: SchedulerConfig = schedulerFromConfig({ _class_name: `${name}Scheduler`, ...chain, ...config });
    const sampler = createSampler(scheduler, { numInferenceSteps: 5 });
    let state: SamplerState = { latent: first.map((x) => x * sampler.initNoiseSigma) };
    sampler.timesteps.forEach((t, i) => {
      const m = seen(sampler, state.latent, i).map((x) => 0.8 * Math.tanh(0.5 * x + Math.sin(t / 150)));
      state = sampler.step(i, state, m, sampler.draws?.(i) ? draw?.() : undefined);
    });
    return state.latent;
  };
  const leading = { timestep_spacing: "leading", steps_offset: 1 };
  const zeroSnr = { timestep_spacing: "trailing", rescale_betas_zero_snr: true, prediction_type: "v_prediction" };
  const latents = { clip_sample: false };

  test.each<[string, object, number]>([
    ["EulerDiscrete", leading, 3.58145],
    ["EulerDiscrete", {}, 4.53983],
    ["EulerDiscrete", { timestep_spacing: "trailing" }, 4.83996],
    ["EulerDiscrete", { ...leading, use_karras_sigmas: true }, 3.7281],
    ["EulerDiscrete", zeroSnr, 0.10082],
    ["PNDM", { ...leading, skip_prk_steps: true }, 2.90316],
    ["PNDM", { ...leading, skip_prk_steps: true, prediction_type: "v_prediction" }, 0.37208],
    ["DDIM", { ...leading, ...latents, set_alpha_to_one: false }, 3.60204],
    ["DPMSolverMultistep", {}, 5.20667],
    ["DPMSolverMultistep", { use_karras_sigmas: true }, 6.96525],
    ["DPMSolverMultistep", { solver_order: 3 }, 4.62199],
    ["DPMSolverMultistep", zeroSnr, 0.03348],
    ["UniPCMultistep", {}, 5.24586],
    ["UniPCMultistep", { solver_order: 3 }, 4.80045],
    ["UniPCMultistep", { use_karras_sigmas: true }, 7.17377],
  ])("%s %j: %f", (name, config, wanted) => {
    expect(relativeError(run(name, config, Float32Array.of(0.7)), [wanted])).toBeLessThan(1e-4);
  });

  test.each<[string, object, number[]]>([
    ["EulerAncestralDiscrete", { timestep_spacing: "trailing" }, [4.11366, 3.26238, 5.20697, 4.75535]],
    ["LCM", {}, [3.0432, 2.9252, 4.76608, 4.56668]],
    ["DDPM", { ...leading, ...latents }, [4.11889, 2.99524, 4.31494, 4.27391]],
    [
      "DPMSolverMultistep",
      { use_karras_sigmas: true, algorithm_type: "sde-dpmsolver++" },
      [10.27409, 3.97349, 7.33532, 4.41313],
    ],
  ])("%s %j, with noise of seed 3", (name, config, wanted) => {
    const generator = new TorchGenerator(3);
    const found = run(name, config, new Float32Array(4).fill(0.7), () => generator.randn([1, 1, 2, 2]));
    expect(relativeError(found, wanted)).toBeLessThan(1e-5);
  });
});
