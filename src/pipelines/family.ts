import type { Backbone, Conditions, GuidanceRow } from "../denoising/index.js";
import type { Bindings } from "../graph/index.js";
import type { CacheFacts } from "../methods/index.js";
import type { SchedulerConfig } from "../samplers/index.js";
import type { LatentDecoder } from "./decoder.js";
import type { ClassNames } from "./labels.js";
import type { OptionType } from "./option-types.js";

/** What an image of a class-conditional model shows. */
export interface ClassSubject {
  readonly classId: number;
  readonly className: string;
}

/** What requests say of what to draw. */
export interface SubjectOptions {
  /**
   * Of a class-conditional model: classes by name or number, one image each or `numImagesPerPrompt`. A name that fits in
   * its own case goes before those that fit in another.
   */
  classLabels: string | number | readonly (string | number)[];
}

/** What one image shows. `condition` tells distinct conditions apart: equal ones are encoded once. */
export interface Subject {
  readonly condition: number | string;
  /** What results and reports say of the image. */
  readonly about: ClassSubject;
}

/**
 * A kind of model: what its requests ask for, and how that becomes what the network is conditioned on. Everything else
 * about a request is common to all.
 */
export interface Family {
  /** The request option that says what to draw; it is required. */
  readonly subjectOption: keyof SubjectOptions & string;
  /** The options that requests of other families do not have. */
  readonly options: Readonly<Record<string, OptionType>>;
  /** What a request names, an image each. Types have been checked. @throws FemoError E_OPTION */
  subjects(options: SubjectOptions): readonly Subject[];
  /** What requests that do not say go by. */
  readonly defaults: { readonly numInferenceSteps: number; readonly guidanceScale: number };
  /** The runs that an image takes in each step, under which conditions, and how their outputs are weighted; as many for each. */
  rows(subject: Subject, guidanceScale: number): readonly GuidanceRow<Subject["condition"]>[];
  /** The model's inputs that vary with the condition, a row for each. */
  encode(conditions: readonly Subject["condition"][]): Promise<Conditions["feeds"]>;
  /** What the symbols of the model's sample are. */
  readonly sizes: Bindings;
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
  readonly scheduler: SchedulerConfig;
  readonly caching: CacheFacts;
}
