import { FemoError } from "../errors.js";
import { type DdimConfig, ddim } from "./ddim.js";
import { type DpmSolverConfig, dpmSolver } from "./dpm-solver.js";
import { oneOf } from "./options.js";
import { type Sampler, type SamplerName, samplerNames } from "./sampler.js";
import type { TimestepSpacing } from "./timesteps.js";
import { trainingChainDefaults } from "./training-chain.js";

/**
 * What is known of a model's sampling: its own sampler, and that sampler's settings as far as they are given. What is not
 * given the sampler fills in for itself.
 */
export type SchedulerConfig =
  | ({ readonly sampler: "ddim" } & Omit<DdimConfig, "numInferenceSteps">)
  | ({ readonly sampler: "dpm-solver++" } & Omit<DpmSolverConfig, "numInferenceSteps">);

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
 * A sampler for a model: its own with all its settings, or another, to which the training chain, the spacing and its
 * offset carry over, as with diffusers' `from_config`.
 * @throws FemoError E_OPTION if there is no such sampler, or as the sampler itself
 */
export function createSampler(scheduler: SchedulerConfig, choice: SamplerChoice): Sampler {
  const { sampler = scheduler.sampler, timestepSpacing, numInferenceSteps } = choice;
  const chosen = { ...(timestepSpacing !== undefined && { timestepSpacing }), numInferenceSteps };
  switch (sampler) {
    case "ddim":
      return ddim({ ...(scheduler.sampler === "ddim" ? scheduler : sharedBy(scheduler)), ...chosen });
    case "dpm-solver++": {
      const settings = scheduler.sampler === "dpm-solver++" ? scheduler : sharedBy(scheduler);
      return dpmSolver({ ...settings, ...chosen, ...(timestepSpacing !== undefined && { useKarrasSigmas: false }) });
    }
    default:
      throw new FemoError("E_OPTION", `sampler: expected ${oneOf(samplerNames)}, found ${JSON.stringify(sampler)}.`);
  }
}

const sharedKeys: readonly string[] = [...Object.keys(trainingChainDefaults), "timestepSpacing", "stepsOffset"];

/** The settings that every sampler has. */
const sharedBy = (scheduler: SchedulerConfig): Omit<DdimConfig & DpmSolverConfig, "numInferenceSteps"> =>
  Object.fromEntries(Object.entries(scheduler).filter(([key]) => sharedKeys.includes(key)));
