import { FemoError } from "../errors.js";
import { inCamelCase, type SamplerDefinition, sharedKeys } from "./definition.js";
import { oneOf } from "./options.js";
import type { Sampler } from "./sampler.js";
import { namedSamplers, type SamplerOption, type SchedulerConfig, samplerTable } from "./table.js";
import type { TimestepSpacing } from "./timesteps.js";

/** What the DiT repository samples with: linear β, its own respacing, no clipping. */
export const ditScheduler: SchedulerConfig = { sampler: "ddim", clipSample: false, timestepSpacing: "dit" };

/** A request's part in how to sample. */
export interface SamplerChoice {
  /** Default: the model's own. */
  readonly sampler?: SamplerOption | undefined;
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
  const chosen = { numInferenceSteps, ...(timestepSpacing !== undefined && { timestepSpacing }) };
  if (typeof sampler !== "object") {
    const definition = definitionOf(sampler);
    return definition.create(sampler === own ? settings : carriedOver(settings, definition), chosen);
  }
  const definition = definitionOf(sampler.sampler);
  if (!definition.given) {
    throw new FemoError("E_OPTION", `sampler: expected ${definition.name} by its name alone, found an object.`);
  }
  return definition.create({ ...carriedOver(settings, definition), ...definition.given(sampler) }, chosen);
}

function definitionOf(name: string): SamplerDefinition {
  const definition = samplerTable.find((sampler) => sampler.name === name);
  if (definition) return definition;
  throw new FemoError(
    "E_OPTION",
    `sampler: expected ${oneOf(namedSamplers)}, or a solver of the sampler multistep, found ${JSON.stringify(name)}.`,
  );
}

const shared = new Set(Object.keys(sharedKeys).map(inCamelCase));

const carriedOver = (settings: object, { spacings }: SamplerDefinition): object =>
  Object.fromEntries(
    Object.entries(settings).filter(
      ([key, value]) => shared.has(key) && (key !== "timestepSpacing" || spacings.includes(value)),
    ),
  );
