import * as z from "zod/mini";
import type { SamplerDefinition } from "./definition.js";
import {
  type DpmSolverConfig,
  dpmSolverDefaults,
  dpmSolverFromKeys,
  dpmSolverKeys,
  dpmSolverOf,
  dpmSolverOptions,
} from "./dpm-solver.js";
import { dpmStepsFixed } from "./dpm-steps.js";
import { demandOf } from "./options.js";
import type { Sampler } from "./sampler.js";
import { timestepSpacings } from "./timesteps.js";

/** diffusers' `DPMSolverMultistepScheduler` config in camelCase, of algorithm "sde-dpmsolver++", plus the number of steps. */
export interface DpmSolverSdeConfig extends DpmSolverConfig {
  /** Default 2. */
  readonly solverOrder?: 1 | 2;
}

export const dpmSolverSdeDefaults: Required<Omit<DpmSolverSdeConfig, "numInferenceSteps">> = {
  ...dpmSolverDefaults,
  solverOrder: 2,
};

/**
 * DPM-Solver++ of the SDE, of order 2 also known as "2M SDE", with a plain normal sample at every step, the last one too.
 * Interfaces that draw it from a Brownian path give other images under the same seed.
 *
 * Reproduces diffusers' `DPMSolverMultistepScheduler` as {@link dpmSolver} does. Order 3, in which a sign is wrong there, is
 * refused.
 *
 * @throws FemoError E_OPTION as {@link dpmSolver}
 */
export function dpmSolverSde(config: DpmSolverSdeConfig): Sampler {
  const options = { ...dpmSolverSdeDefaults, ...config };
  demandOf(options)([1, 2].includes(options.solverOrder), "solverOrder", "1 or 2 of the SDE");
  return dpmSolverOf(options, "sde");
}

/** DPM-Solver++ of the SDE. */
export const dpmSolverSdeSampler: SamplerDefinition<
  "dpm-solver++-sde",
  Omit<DpmSolverSdeConfig, "numInferenceSteps">
> = {
  name: "dpm-solver++-sde",
  title: "DPM-Solver++ SDE",
  process: "diffusion",
  classes: ["DPMSolverMultistepScheduler"],
  isOwn: ({ algorithm_type: algorithm }) => algorithm === "sde-dpmsolver++",
  keys: { ...dpmSolverKeys, solver_order: z.literal([1, 2]) },
  fixed: { ...dpmStepsFixed, algorithm_type: z.literal("sde-dpmsolver++"), use_flow_sigmas: z.literal(false) },
  fromKeys: dpmSolverFromKeys,
  spacings: timestepSpacings,
  defaults: dpmSolverSdeDefaults,
  create: (settings, chosen) => dpmSolverSde(dpmSolverOptions(settings, chosen)),
};
