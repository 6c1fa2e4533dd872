import type { Backbone, Conditions, GuidanceRow } from "../denoising/index.js";
import type { Bindings } from "../graph/index.js";
import type { Planes } from "../images/index.js";
import type { CacheFacts } from "../methods/index.js";
import type { SamplerChoice, SchedulerConfig } from "../samplers/index.js";
import type { LatentDecoder } from "./decoder.js";
import type { LatentEncoder } from "./encoder.js";
import type { ClassNames } from "./labels.js";
import type { OptionType } from "./option-types.js";
import type { SubjectOption, SubjectOptions } from "./subject-options.js";

/** What an image shows. */
export interface Shown {
  /** In words: the name of its class, or its prompt. */
  readonly title: string;
  readonly classId?: number;
  readonly className?: string;
  readonly prompt?: string;
  readonly prompt2?: string;
  readonly negativePrompt?: string;
  readonly negativePrompt2?: string;
}

/** What the network is conditioned on, as a family makes it. Equal ones are one value: they are encoded once. */
export type Condition = number | object;

/** A picture to begin with, in place of noise alone. */
export interface Beginning {
  /** Of [-1, 1].  [3, H, W] */
  readonly image: Planes;
  /** What of it is drawn anew, 1, and what stays, 0, of each latent pixel; default: all of it is.  [h w] */
  readonly mask?: Float32Array;
  /** The picture with grey where it is drawn anew. */
  readonly masked?: Planes;
}

/** What one image shows, and how it is drawn. */
export interface Subject {
  readonly beginning?: Beginning | undefined;
  /** The runs that it takes in each step, under which conditions, and how their outputs are weighted; as many for each image. */
  readonly rows: readonly GuidanceRow<Condition>[];
  /** What results and reports say of the image. */
  readonly about: Shown;
}

/** What a request asks a family to draw. */
export interface Drawing {
  /** An image each. */
  readonly subjects: readonly Subject[];
  /** What the symbols of the model's inputs are. */
  readonly sizes: Bindings;
  /** How much of a picture to begin with is noise at first, 0 to 1; so much of the steps is run. */
  readonly strength?: number;
  /** Of the training timesteps, from the noisiest: the fractions that others have done, and up to which steps are run; 0 to 1. */
  readonly denoisingStart?: number;
  readonly denoisingEnd?: number;
  /** How much of the spread that guidance adds to a prediction is taken back, 0 to 1. Default 0. */
  readonly guidanceRescale?: number;
  /** What the sampler has to know of it. */
  readonly sampling?: Partial<SamplerChoice>;
  /** What reports say of it besides what they say of every request. */
  readonly settings: Readonly<Record<string, string | number>>;
  /** What the user should know, a sentence each. */
  readonly notes: readonly string[];
}

/** Conditions as the model takes them, and what the user should know of that. */
export interface Encoded {
  /** The model's inputs that vary with the condition, a row for each. */
  readonly feeds: Conditions["feeds"];
  readonly notes: readonly string[];
}

/**
 * A kind of model: what its requests ask for, and how that becomes what the network is conditioned on. Everything else
 * about a request is common to all.
 */
export interface Family {
  /** The request option that says what to draw; it is required. */
  readonly subjectOption: SubjectOption;
  /** The options that requests of other families need not have. */
  readonly options: Readonly<Record<string, OptionType>>;
  /** What to draw where nothing is said, as the subject option takes it: for studies. */
  readonly examples: readonly (string | number)[];
  /** What requests that do not say go by. */
  readonly defaults: { readonly numInferenceSteps: number; readonly guidanceScale: number };
  /** What a request asks for, an image for each thing that it names. Types have been checked. @throws FemoError E_OPTION */
  drawing(options: SubjectOptions & { readonly guidanceScale?: number | undefined }): Drawing;
  /** @throws the signal's reason if it was aborted */
  encode(conditions: readonly Condition[], signal: AbortSignal | undefined): Promise<Encoded>;
  /** Names of the classes, if the model draws classes. */
  readonly classes: ClassNames;
}

/** A model in all its parts, ready to draw. */
export interface PipelineParts {
  /** Of the model, for reports. */
  readonly name: string;
  readonly family: Family;
  readonly backbone: Backbone;
  /** From latents to images; without it the model draws pixels. */
  readonly decoder: LatentDecoder | undefined;
  /** Back from images to latents, for families that begin with pictures. */
  readonly encoder?: LatentEncoder;
  readonly scheduler: SchedulerConfig;
  readonly caching: CacheFacts;
  /** What the user should know of how it was opened, a sentence each. */
  readonly notes?: readonly string[];
}
