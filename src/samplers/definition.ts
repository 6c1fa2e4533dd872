import * as z from "zod/mini";
import { flowPrediction, predictionTypes } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import { MOST_TRAIN_TIMESTEPS, type TimestepSpacing } from "./timesteps.js";
import { betaSchedules } from "./training-chain.js";

/**
 * What a model was trained to undo: a diffusion, which is a chain of noisings, or a flow, the straight line between an image
 * and noise (flow matching, arXiv 2210.02747).
 */
export type Process = "diffusion" | "flow";

/** Of a model, given what is known of its sampling. */
export const processOf = ({ predictionType }: { readonly predictionType?: string }): Process =>
  predictionType === flowPrediction ? "flow" : "diffusion";

/** What a request chooses of how to sample. */
export interface ChosenSteps {
  readonly numInferenceSteps: number;
  readonly timestepSpacing?: TimestepSpacing;
  /** Of a flow only: tokens of the image, and noise levels of the request's own. */
  readonly imageTokens?: number;
  readonly sigmas?: readonly number[];
}

/** A sampler as models and users choose it: one file, and one line in the table of samplers. */
export interface SamplerDefinition<Name extends string = string, Settings extends object = object> {
  readonly name: Name;
  /** As its authors write it. */
  readonly title: string;
  /** Of the models that it samples. Two samplers may have one name if these differ. */
  readonly process: Process;
  /** Classes of diffusers' schedulers whose configs are of this sampler. */
  readonly classes: readonly string[];
  /** Whether a config of such a class is one of this sampler's, where there is more to it. */
  isOwn?(config: Readonly<Record<string, unknown>>): boolean;
  /** The keys that it reads of such a config, in snake case; the settings have their names in camelCase. */
  readonly keys: z.core.$ZodShape;
  /** The keys that must be what they are by default, for want of more. */
  readonly fixed: z.core.$ZodShape;
  /** Settings from those keys, where they are not simply the same. @throws FemoError E_CONFIG if they do not fit together */
  fromKeys?(read: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>;
  /** The spacings that it has. That of a model's own sampler carries over if it is among them. */
  readonly spacings: readonly TimestepSpacing[];
  /** Of its settings, those that a request may give too; left out if `given` knows better. */
  readonly defaults?: Required<Settings>;
  /** Checks the settings that a request gives with the name, if they are no such ones. @throws FemoError E_OPTION */
  given?(choice: unknown): object;
  /** @throws FemoError E_OPTION if a setting is out of range */
  create(settings: Settings, chosen: ChosenSteps): Sampler;
}

const beta = z.number().check(z.gt(0), z.lt(1));

/**
 * The keys of the training chain, its timesteps and clipping, which carry over from one sampler to another: files of models
 * say them for samplers that have no use for them too.
 */
export const sharedKeys = {
  num_train_timesteps: z.int().check(z.minimum(1), z.maximum(MOST_TRAIN_TIMESTEPS)),
  beta_start: beta,
  beta_end: beta,
  beta_schedule: z.enum(betaSchedules),
  trained_betas: z.nullable(z.array(beta)),
  rescale_betas_zero_snr: z.boolean(),
  prediction_type: z.enum(predictionTypes),
  timestep_spacing: z.enum(["leading", "trailing", "linspace"]),
  steps_offset: z.int().check(z.minimum(0)),
  clip_sample: z.boolean(),
  clip_sample_range: z.number().check(z.gt(0)),
  set_alpha_to_one: z.boolean(),
};

/** A key of a config as a setting: "beta_start" is `betaStart`. */
export const inCamelCase = (key: string): string =>
  key.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
