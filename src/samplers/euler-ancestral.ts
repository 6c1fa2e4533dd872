import * as z from "zod/mini";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { type EulerStepsConfig, eulerSteps, eulerStepsDefaults, eulerStops } from "./euler-steps.js";
import { type Leap, sigmaLevel, straightWeights } from "./levels.js";
import type { LinearStep } from "./linear-steps.js";
import { demandOf } from "./options.js";
import type { Sampler } from "./sampler.js";
import { strideSpacings } from "./timesteps.js";

/** diffusers' `EulerAncestralDiscreteScheduler` config in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface EulerAncestralConfig extends EulerStepsConfig {
  /** "epsilon" or "v_prediction". Default "epsilon". */
  readonly predictionType?: "epsilon" | "v_prediction";
}

export const eulerAncestralDefaults: Required<Omit<EulerAncestralConfig, "numInferenceSteps">> = {
  ...eulerStepsDefaults,
  predictionType: "epsilon",
};

/**
 * Euler's method with ancestral noise (as in k-diffusion): a step of Euler's to less noise than the next level has, and fresh
 * noise for the rest. It draws at every step, though the last one takes nothing of it.
 *
 * Reproduces diffusers' `EulerAncestralDiscreteScheduler` as {@link euler} does its own.
 *
 * @throws FemoError E_OPTION as {@link euler}
 */
export function eulerAncestral(config: EulerAncestralConfig): Sampler {
  const options = { ...eulerAncestralDefaults, ...config };
  const isKnown = options.predictionType === "epsilon" || options.predictionType === "v_prediction";
  demandOf(options)(isKnown, "predictionType", "epsilon or v_prediction");
  return {
    ...eulerSteps("euler-ancestral", options, eulerStops(options), 0, ancestralStep),
    spacing: options.timestepSpacing,
  };
}

/** up² + down² = σ′². A chain without signal at its end may rise by a hair just before: nothing is drawn there. */
function ancestralStep({ from, to }: Leap): LinearStep {
  const falls = to.noiseVariance < from.noiseVariance;
  const up = falls ? Math.sqrt((to.noiseVariance * (from.noiseVariance - to.noiseVariance)) / from.noiseVariance) : 0;
  const down = falls ? to.noiseVariance / from.noise : to.noise; // √(σ′² − up²)
  const { x, x0 } = straightWeights({ from, to: sigmaLevel(down) });
  return { x, feature: x0, noise: up };
}

/** Euler's method with ancestral noise. */
export const eulerAncestralSampler: SamplerDefinition<
  "euler-ancestral",
  Omit<EulerAncestralConfig, "numInferenceSteps">
> = {
  name: "euler-ancestral",
  title: "Euler ancestral",
  process: "diffusion",
  classes: ["EulerAncestralDiscreteScheduler"],
  keys: { ...sharedKeys, prediction_type: z.enum(["epsilon", "v_prediction"]) },
  fixed: {},
  spacings: strideSpacings,
  defaults: eulerAncestralDefaults,
  create: (settings, chosen) => eulerAncestral({ ...settings, ...chosen }),
};
