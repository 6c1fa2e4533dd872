import * as z from "zod/mini";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { diffusionLevel, type Leap } from "./levels.js";
import { type LinearStep, linearSampler } from "./linear-steps.js";
import { demandOf, oneOf } from "./options.js";
import { prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import { checkSpacing, sampledTimesteps, startNotes, strideSpacings, type TimestepSpacing } from "./timesteps.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** How much noise a step puts back: as much as the posterior has, or as much as the step took. */
export type VarianceType = (typeof varianceTypes)[number];
export const varianceTypes = ["fixed_small", "fixed_small_log", "fixed_large"] as const;

/** diffusers' `DDPMScheduler` config in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface DdpmConfig extends TrainingChainConfig {
  /** Model evaluations n, 1 … numTrainTimesteps. */
  readonly numInferenceSteps: number;
  /** "fixed_small_log" is "fixed_small". Default "fixed_small". */
  readonly varianceType?: VarianceType;
  /** Clip the predicted x₀ to ±clipSampleRange: for pixels, seldom right for latents. Default true. */
  readonly clipSample?: boolean;
  /** Bound for clipSample, latent scale, > 0. Default 1. */
  readonly clipSampleRange?: number;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** All but "lambda". Default "leading". */
  readonly timestepSpacing?: TimestepSpacing;
}

export const ddpmDefaults: Required<Omit<DdpmConfig, "numInferenceSteps">> = {
  ...trainingChainDefaults,
  varianceType: "fixed_small",
  clipSample: true,
  clipSampleRange: 1,
  stepsOffset: 0,
  timestepSpacing: "leading",
};

/** The least variance of a step that draws, as in diffusers. */
const LEAST_VARIANCE = 1e-20;

/**
 * Ancestral sampling of a diffusion (arXiv 2006.11239, eq. 7): x ← the mean of the posterior, given x and the predicted x₀,
 * plus fresh noise. A step goes to the next timestep of the list, the last one to no noise; at timestep 0 nothing is drawn.
 *
 * Reproduces diffusers' `DDPMScheduler` of a fixed variance, except that β, ᾱ and all coefficients are float64 (there
 * float32). "dit" spacing is femo's own.
 *
 * @throws FemoError E_OPTION if a value is outside its range, if an offset leads past timestep T − 1, or if ε is to be
 *   predicted at a timestep without signal
 */
export function ddpm(config: DdpmConfig): Sampler {
  const options = { ...ddpmDefaults, ...config };
  checkTrainingChain(options);
  checkSpacing(options, strideSpacings);
  const demand = demandOf(options);
  demand(options.clipSampleRange > 0, "clipSampleRange", "a positive number");
  demand(varianceTypes.includes(options.varianceType), "varianceType", oneOf(varianceTypes));
  const alphaBar = cumulativeAlphas(options); // [T]
  const timesteps = sampledTimesteps(options); // [n]
  const levels = [...timesteps.map((t) => alphaBar[t] as number), 1].map(diffusionLevel);
  const leaps = timesteps.map((_, i) => ({ from: levels[i], to: levels[i + 1] }) as Leap);
  return {
    ...linearSampler({
      name: "ddpm",
      timesteps,
      leaps,
      predictions: leaps.map(({ from }, i) => prediction(options.predictionType, from, timesteps[i] as number)),
      steps: leaps.map((leap, i) => [posterior(leap, options.varianceType, timesteps[i] !== 0)]),
      ...(options.clipSample && { bound: options.clipSampleRange }),
    }),
    spacing: options.timestepSpacing,
    notes: startNotes(options),
  };
}

function posterior({ from, to }: Leap, type: VarianceType, draws: boolean): LinearStep {
  const kept = from.signalVariance / to.signalVariance; // of the signal, by the step from `to` to `from` that is undone
  const small = Math.max((to.noiseVariance / from.noiseVariance) * (1 - kept), LEAST_VARIANCE);
  return {
    x: (Math.sqrt(kept) * to.noiseVariance) / from.noiseVariance,
    feature: (to.signal * (1 - kept)) / from.noiseVariance,
    ...(draws && { noise: Math.sqrt(type === "fixed_large" ? 1 - kept : small) }),
  };
}

/** Ancestral sampling. */
export const ddpmSampler: SamplerDefinition<"ddpm", Omit<DdpmConfig, "numInferenceSteps">> = {
  name: "ddpm",
  title: "DDPM",
  process: "diffusion",
  classes: ["DDPMScheduler"],
  keys: { ...sharedKeys, variance_type: z.enum(varianceTypes) },
  fixed: { thresholding: z.literal(false) },
  spacings: strideSpacings,
  defaults: ddpmDefaults,
  create: (settings, chosen) => ddpm({ ...settings, ...chosen }),
};
