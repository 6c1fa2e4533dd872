import { FemoError } from "../errors.js";
import { type DdimConfig, ddim } from "./ddim.js";
import { type DpmSolverConfig, dpmSolver } from "./dpm-solver.js";
import { oneOf } from "./options.js";
import { type Sampler, type SamplerName, samplerNames } from "./sampler.js";
import type { TimestepSpacing } from "./timesteps.js";

/**
 * What is known of a model's sampling: its own sampler, and settings as far as they are given, of any sampler. What is
 * not given, each sampler fills in for itself, as diffusers' `from_config` does.
 */
export interface SchedulerConfig
  extends Omit<DdimConfig, "numInferenceSteps">,
    Omit<DpmSolverConfig, "numInferenceSteps"> {
  readonly sampler: SamplerName;
}

/** What the DiT repository samples with: linear β, its own respacing, no clipping. */
export const ditScheduler: SchedulerConfig = { sampler: "ddim", clipSample: false, timestepSpacing: "dit" };

/** A request's part in how to sample. */
export interface SamplerChoice {
  /** Default: the model's own. */
  readonly sampler?: SamplerName | undefined;
  /** Default: the model's own, or that of the sampler. */
  readonly timestepSpacing?: TimestepSpacing | undefined;
  readonly numInferenceSteps: number;
}

/**
 * A sampler for a model, its own or another for the same training chain.
 * @throws FemoError E_OPTION if there is no such sampler, or as the sampler itself
 */
export function createSampler(scheduler: SchedulerConfig, choice: SamplerChoice): Sampler {
  const { sampler = scheduler.sampler, timestepSpacing, numInferenceSteps } = choice;
  const config = {
    ...scheduler,
    ...(timestepSpacing !== undefined && { timestepSpacing, useKarrasSigmas: false }),
    numInferenceSteps,
  };
  switch (sampler) {
    case "ddim":
      return ddim(config);
    case "dpm-solver++":
      return dpmSolver(config);
    default:
      throw new FemoError("E_OPTION", `sampler: expected ${oneOf(samplerNames)}, found ${JSON.stringify(sampler)}.`);
  }
}
