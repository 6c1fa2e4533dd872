import * as z from "zod/mini";
import type { ChosenSteps, SamplerDefinition } from "./definition.js";
import { sharedKeys } from "./definition.js";
import {
  checkDpmSteps,
  type DpmEquation,
  type DpmStepsConfig,
  dpmSteps,
  dpmStepsDefaults,
  dpmStepsFixed,
  dpmStepsKeys,
} from "./dpm-steps.js";
import type { Level } from "./levels.js";
import { prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import { oneConversion, sigmaDefaults } from "./sigmas.js";
import { type SolverStopsConfig, solverStops, solverStopsDefaults, solverStopsKeys } from "./solver-stops.js";
import { timestepSpacings } from "./timesteps.js";

/**
 * diffusers' `DPMSolverMultistepScheduler` config in camelCase, of algorithm "dpmsolver++", plus the number of steps.
 * Defaults are diffusers' too.
 */
export interface DpmSolverConfig extends SolverStopsConfig, DpmStepsConfig {
  /** Model evaluations n, 1 … numTrainTimesteps; for "leading" and "linspace" spacing one less. */
  readonly numInferenceSteps: number;
}

/** A {@link DpmSolverConfig} before the number of steps is chosen, nothing left out. */
export type DpmSolverSchedulerConfig = Required<Omit<DpmSolverConfig, "numInferenceSteps">>;

/** The defaults of diffusers' `DPMSolverMultistepScheduler`. */
export const dpmSolverDefaults: DpmSolverSchedulerConfig = { ...solverStopsDefaults, ...dpmStepsDefaults };

/**
 * DPM-Solver++, multistep, for a diffusion, see {@link dpmSteps}; of order 1 it is DDIM.
 *
 * Reproduces diffusers' `DPMSolverMultistepScheduler`, which never clips x₀, except that β, ᾱ and all coefficients are
 * float64 (there float32), and that timesteps of Karras' levels and of spacing "lambda", its `use_lu_lambdas`, are
 * rounded for every β schedule (there cut off for the cosine one).
 *
 * @throws FemoError E_OPTION as {@link solverStops}
 */
export const dpmSolver = (config: DpmSolverConfig): Sampler => dpmSolverOf(config, "ode");

/** {@link dpmSolver}, and the same of the SDE. */
export function dpmSolverOf(config: DpmSolverConfig, equation: DpmEquation): Sampler {
  const options = { ...dpmSolverDefaults, ...config };
  checkDpmSteps(options);
  const { spacing, notes, ...stops } = solverStops(options);
  const predictions = stops.timesteps.map((t, i) => prediction(options.predictionType, stops.levels[i] as Level, t));
  return { ...dpmSteps(options, stops, predictions, equation), spacing, notes };
}

/** The keys of a config of a diffusion's DPM-Solver++. */
export const dpmSolverKeys = { ...sharedKeys, ...dpmStepsKeys, ...solverStopsKeys, use_lu_lambdas: z.boolean() };

/** Settings from those keys. */
export function dpmSolverFromKeys({ useLuLambdas, ...read }: Readonly<Record<string, unknown>>) {
  const settings = oneConversion(read);
  return useLuLambdas ? { ...settings, timestepSpacing: "lambda" } : settings;
}

/** Settings, and what a request chooses: its spacing goes before levels of Karras and the others. */
export const dpmSolverOptions = <S extends object>(settings: S, chosen: ChosenSteps) => ({
  ...settings,
  ...chosen,
  ...(chosen.timestepSpacing !== undefined && sigmaDefaults),
});

/** DPM-Solver++, multistep. */
export const dpmSolverSampler: SamplerDefinition<"dpm-solver++", Omit<DpmSolverConfig, "numInferenceSteps">> = {
  name: "dpm-solver++",
  title: "DPM-Solver++",
  process: "diffusion",
  classes: ["DPMSolverMultistepScheduler"],
  keys: dpmSolverKeys,
  fixed: { ...dpmStepsFixed, use_flow_sigmas: z.literal(false) },
  fromKeys: dpmSolverFromKeys,
  spacings: timestepSpacings,
  defaults: dpmSolverDefaults,
  create: (settings, chosen) => dpmSolver(dpmSolverOptions(settings, chosen)),
};
