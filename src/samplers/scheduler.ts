import { FemoError } from "../errors.js";
import {
  type ChosenSteps,
  inCamelCase,
  type Process,
  processOf,
  type SamplerDefinition,
  sharedKeys,
} from "./definition.js";
import { flowDefaults } from "./flow-schedule.js";
import { givenSettings } from "./given-settings.js";
import { oneOf } from "./options.js";
import type { Sampler } from "./sampler.js";
import { type SigmaConfig, sigmaConversion, sigmaDefaults } from "./sigmas.js";
import { isSolver, type SamplerOption, type SchedulerConfig, samplersOf, samplerTable } from "./table.js";
import type { TimestepSpacing } from "./timesteps.js";

/** What the DiT repository samples with: linear β, its own respacing, no clipping. */
export const ditScheduler = {
  sampler: "ddim",
  clipSample: false,
  timestepSpacing: "dit",
} as const satisfies SchedulerConfig;

/** A request's part in how to sample. */
export interface SamplerChoice {
  /** Its name, or name and settings. Default: the model's own. */
  readonly sampler?: SamplerOption | undefined;
  /** Default: the model's own, or that of the sampler. */
  readonly timestepSpacing?: TimestepSpacing | undefined;
  readonly numInferenceSteps: number;
  /** Of a flow: tokens of the image, by which dynamic shifting goes. */
  readonly imageTokens?: number | undefined;
  /** Of a flow: noise levels before shifting, from at most 1 down to above 0, in place of a spacing.  [numInferenceSteps] */
  readonly sigmas?: readonly number[] | undefined;
}

/**
 * A sampler for a model: its own with all its settings, or another, to which the training chain or the flow's schedule, the
 * spacing and its offset carry over, as with diffusers' `from_config`. Settings that the choice gives go over these.
 * @throws FemoError E_OPTION if there is no such sampler for the model, or as the sampler itself
 */
export function createSampler(scheduler: SchedulerConfig, choice: SamplerChoice): Sampler {
  const { sampler: own, ...settings } = scheduler;
  const { sampler = own } = choice;
  const process = processOf(settings);
  const chosen = chosenSteps(choice, process);
  const name = typeof sampler === "object" ? sampler.sampler : sampler;
  const definition = definitionOf(name, process);
  const known = name === own ? settings : carriedOver(settings, definition);
  if (typeof sampler !== "object") return definition.create(known, chosen);
  const given = definition.given?.(sampler) ?? givenSettings(definition, sampler);
  return createOver(definition, known, given, chosen);
}

/** Noise levels that the choice gives take the place of the model's, and are not undone by a spacing beside them. */
function createOver(definition: SamplerDefinition, known: object, given: SigmaConfig, chosen: ChosenSteps): Sampler {
  if (!sigmaConversion(given)) return definition.create({ ...known, ...given }, chosen);
  const { timestepSpacing, ...rest } = chosen;
  const spacing = timestepSpacing !== undefined && { timestepSpacing };
  return definition.create({ ...known, ...spacing, ...sigmaDefaults, ...given }, rest);
}

/**
 * What a request says of its sampling over what its family has for requests that say nothing. A solver has timesteps of its
 * own, beside which there is no spacing.
 */
export function chosenOver(
  own: Partial<SamplerChoice> = {},
  said: Partial<SamplerChoice> = {},
): Partial<SamplerChoice> {
  const { timestepSpacing, ...others } = own;
  const spacing = isSolver(said.sampler) || timestepSpacing === undefined ? {} : { timestepSpacing };
  const given = Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined));
  return { ...others, ...spacing, ...given };
}

function chosenSteps(choice: SamplerChoice, process: Process): ChosenSteps {
  const { numInferenceSteps, timestepSpacing, imageTokens, sigmas } = choice;
  if (sigmas !== undefined && process !== "flow") {
    throw new FemoError("E_OPTION", "sigmas: expected none, as the model is no flow, found some: use timestepSpacing.");
  }
  if (sigmas !== undefined && timestepSpacing !== undefined) {
    throw new FemoError("E_OPTION", `timestepSpacing: expected none beside sigmas, found ${timestepSpacing}.`);
  }
  return {
    numInferenceSteps,
    ...(timestepSpacing !== undefined && { timestepSpacing }),
    ...(process === "flow" && imageTokens !== undefined && { imageTokens }),
    ...(sigmas !== undefined && { sigmas }),
  };
}

function definitionOf(name: string, process: Process): SamplerDefinition {
  const named = samplerTable.filter((sampler) => sampler.name === name);
  const definition = named.find((sampler) => sampler.process === process);
  if (definition) return definition;
  const why = named.length > 0 ? `, which does not sample a ${process}, as the model is` : "";
  throw new FemoError(
    "E_OPTION",
    `sampler: expected ${oneOf(samplersOf(process))}, or a solver of the sampler multistep, found ${JSON.stringify(name)}${why}.`,
  );
}

const carriedKeys: { readonly [P in Process]: ReadonlySet<string> } = {
  diffusion: new Set(Object.keys(sharedKeys).map(inCamelCase)),
  flow: new Set(Object.keys(flowDefaults)),
};

const carriedOver = (settings: object, { process, spacings }: SamplerDefinition): object =>
  Object.fromEntries(
    Object.entries(settings).filter(
      ([key, value]) => carriedKeys[process].has(key) && (key !== "timestepSpacing" || spacings.includes(value)),
    ),
  );
