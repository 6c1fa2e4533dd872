import { FemoError } from "../errors.js";
import { inCamelCase, type SamplerDefinition, sharedKeys } from "./definition.js";
import { oneOf } from "./options.js";
import type { Sampler } from "./sampler.js";
import { type SamplerName, type SchedulerConfig, samplerNames, samplerTable } from "./table.js";
import type { TimestepSpacing } from "./timesteps.js";

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
  const { sampler: own, ...settings } = scheduler;
  const { sampler = own, timestepSpacing, numInferenceSteps } = choice;
  const definition: SamplerDefinition | undefined = samplerTable.find(({ name }) => name === sampler);
  if (!definition) {
    throw new FemoError("E_OPTION", `sampler: expected ${oneOf(samplerNames)}, found ${JSON.stringify(sampler)}.`);
  }
  const chosen = { numInferenceSteps, ...(timestepSpacing !== undefined && { timestepSpacing }) };
  return definition.create(sampler === own ? settings : sharedOf(settings), chosen);
}

const shared = new Set(Object.keys(sharedKeys).map(inCamelCase));

const sharedOf = (settings: object): object =>
  Object.fromEntries(Object.entries(settings).filter(([key]) => shared.has(key)));
