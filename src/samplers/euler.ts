import * as z from "zod/mini";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { type EulerStepsConfig, eulerSteps, eulerStepsDefaults, eulerStops } from "./euler-steps.js";
import { straightWeights } from "./levels.js";
import { demandOf, oneOf } from "./options.js";
import type { Sampler } from "./sampler.js";
import { checkSigmas, oneConversion, type SigmaConfig, sigmaConversion, sigmaDefaults, timestepAt } from "./sigmas.js";
import { type FinalSigmasType, finalSigmasTypes, solverStopsKeys } from "./solver-stops.js";
import { strideSpacings } from "./timesteps.js";

/** diffusers' `EulerDiscreteScheduler` config in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface EulerConfig extends EulerStepsConfig, SigmaConfig {
  /** Default "zero". */
  readonly finalSigmasType?: FinalSigmasType;
}

export const eulerDefaults: Required<Omit<EulerConfig, "numInferenceSteps">> = {
  ...eulerStepsDefaults,
  ...sigmaDefaults,
  finalSigmasType: "zero",
};

/**
 * Euler's method for a diffusion in x = x₀ + σ·ε (arXiv 2206.00364, algorithm 2 without churn): x ← x + (σ′ − σ)·(x − x₀)/σ.
 * In what the model sees it is DDIM.
 *
 * Reproduces diffusers' `EulerDiscreteScheduler`, except that β, ᾱ, σ and all coefficients are float64 (there float32). Levels
 * of Karras and the others go from the first to the last spaced one, and the model is told the timestep between timesteps at
 * which they lie. "dit" spacing is femo's own.
 *
 * @throws FemoError E_OPTION if a value is outside its range or an offset leads past timestep T − 1
 */
export function euler(config: EulerConfig): Sampler {
  const options = { ...eulerDefaults, ...config };
  checkSigmas(options);
  const { finalSigmasType, timestepSpacing, numInferenceSteps: n } = options;
  demandOf(options)(finalSigmasTypes.includes(finalSigmasType), "finalSigmasType", oneOf(finalSigmasTypes));
  const { chain, ...spaced } = eulerStops(options);
  const conversion = sigmaConversion(options);
  const sigmas = conversion?.between(spaced.sigmas[0] as number, spaced.sigmas.at(-1) as number, n) ?? spaced.sigmas;
  const timesteps = conversion ? sigmas.map((sigma) => Math.fround(timestepAt(chain, sigma))) : spaced.timesteps;
  const final = finalSigmasType === "zero" ? 0 : (chain[0] as number);
  return {
    ...eulerSteps("euler", options, { timesteps, sigmas }, final, (leap) => {
      const { x, x0 } = straightWeights(leap);
      return { x, feature: x0 };
    }),
    spacing: conversion?.name ?? timestepSpacing,
  };
}

/** Euler's method for a diffusion. A spacing that is chosen goes before levels of Karras and the others. */
export const eulerSampler: SamplerDefinition<"euler", Omit<EulerConfig, "numInferenceSteps">> = {
  name: "euler",
  title: "Euler",
  process: "diffusion",
  classes: ["EulerDiscreteScheduler"],
  keys: { ...sharedKeys, ...solverStopsKeys },
  fixed: {
    interpolation_type: z.literal("linear"),
    timestep_type: z.literal("discrete"),
    sigma_min: z.null(),
    sigma_max: z.null(),
  },
  fromKeys: oneConversion,
  spacings: strideSpacings,
  defaults: eulerDefaults,
  create: (settings, chosen) =>
    euler({ ...settings, ...chosen, ...(chosen.timestepSpacing !== undefined && sigmaDefaults) }),
};
