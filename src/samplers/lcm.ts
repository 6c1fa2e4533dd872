import * as z from "zod/mini";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { diffusionLevel, type Leap } from "./levels.js";
import { type LinearStep, linearSampler } from "./linear-steps.js";
import { demandOf } from "./options.js";
import { prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** diffusers' `LCMScheduler` config in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface LcmConfig extends TrainingChainConfig {
  /** Model evaluations n, 1 … originalInferenceSteps. */
  readonly numInferenceSteps: number;
  /** Timesteps that the model was distilled on, evenly spaced, 1 … numTrainTimesteps. Default 50. */
  readonly originalInferenceSteps?: number;
  /** By what a timestep is multiplied where the boundary condition weighs x₀ and x. Default 10. */
  readonly timestepScaling?: number;
  /** Clip the predicted x₀ to ±clipSampleRange. Default false. */
  readonly clipSample?: boolean;
  /** Bound for clipSample, latent scale, > 0. Default 1. */
  readonly clipSampleRange?: number;
}

/** The defaults of diffusers' `LCMScheduler`: β of Stable Diffusion. */
export const lcmDefaults: Required<Omit<LcmConfig, "numInferenceSteps">> = {
  ...trainingChainDefaults,
  betaStart: 0.00085,
  betaEnd: 0.012,
  betaSchedule: "scaled_linear",
  originalInferenceSteps: 50,
  timestepScaling: 10,
  clipSample: false,
  clipSampleRange: 1,
};

/** Half of the standard deviation of data in −1 … 1, squared, as the paper takes it. */
const DATA_VARIANCE = 0.25;

/**
 * Multistep sampling of a latent consistency model (arXiv 2310.04378, algorithm 3): every step predicts the finished latent
 * and noises it anew to the next timestep; the last one leaves it. Timesteps are some of those of the distillation.
 *
 * Reproduces diffusers' `LCMScheduler`, except that β, ᾱ and all coefficients are float64 (there float32).
 *
 * @throws FemoError E_OPTION if a value is outside its range or ε is to be predicted at a timestep without signal
 */
export function lcm(config: LcmConfig): Sampler {
  const options = { ...lcmDefaults, ...config };
  check(options);
  const alphaBar = cumulativeAlphas(options); // [T]
  const timesteps = timestepsOf(options); // [n]
  const levels = [...timesteps.map((t) => alphaBar[t] as number), 1].map(diffusionLevel);
  const leaps = timesteps.map((_, i) => ({ from: levels[i], to: levels[i + 1] }) as Leap);
  return {
    ...linearSampler({
      name: "lcm",
      timesteps,
      leaps,
      predictions: leaps.map(({ from }, i) => prediction(options.predictionType, from, timesteps[i] as number)),
      steps: leaps.map(({ to }, i) => [
        consistencyStep((timesteps[i] as number) * options.timestepScaling, to, i < leaps.length - 1),
      ]),
      ...(options.clipSample && { bound: options.clipSampleRange }),
    }),
    spacing: "lcm",
    notes: [],
  };
}

/** @param time the timestep, scaled @param draws all but the last */
function consistencyStep(time: number, to: Leap["to"], draws: boolean): LinearStep {
  const skip = DATA_VARIANCE / (time ** 2 + DATA_VARIANCE);
  const out = time / Math.sqrt(time ** 2 + DATA_VARIANCE);
  return { x: to.signal * skip, feature: to.signal * out, ...(draws && { noise: to.noise }) };
}

/** Evenly chosen among those of the distillation, from the noisiest.  [n] */
function timestepsOf({ numInferenceSteps: n, numTrainTimesteps: T, originalInferenceSteps: N }: Required<LcmConfig>) {
  const stride = Math.floor(T / N);
  return Array.from({ length: n }, (_, i) => (N - Math.floor((i * N) / n)) * stride - 1);
}

function check(options: Required<LcmConfig>): void {
  checkTrainingChain(options);
  const demand = demandOf(options);
  const { numInferenceSteps: n, numTrainTimesteps: T, originalInferenceSteps: N } = options;
  demand(Number.isInteger(N) && N >= 1 && N <= T, "originalInferenceSteps", `an integer from 1 to ${T}`);
  const range = `an integer from 1 to ${N} (originalInferenceSteps)`;
  demand(Number.isInteger(n) && n >= 1 && n <= N, "numInferenceSteps", range);
  demand(Number.isFinite(options.timestepScaling), "timestepScaling", "a finite number");
  demand(options.clipSampleRange > 0, "clipSampleRange", "a positive number");
}

/** Multistep sampling of a latent consistency model, which has timesteps of its own in place of a spacing. */
export const lcmSampler: SamplerDefinition<"lcm", Omit<LcmConfig, "numInferenceSteps">> = {
  name: "lcm",
  title: "LCM",
  process: "diffusion",
  classes: ["LCMScheduler"],
  keys: { ...sharedKeys, original_inference_steps: z.int().check(z.minimum(1)), timestep_scaling: z.number() },
  fixed: { thresholding: z.literal(false) },
  spacings: [],
  defaults: lcmDefaults,
  create(settings, { timestepSpacing, ...chosen }) {
    demandOf({ timestepSpacing })(
      timestepSpacing === undefined,
      "timestepSpacing",
      "none, as LCM has its own timesteps",
    );
    return lcm({ ...settings, ...chosen });
  },
};
