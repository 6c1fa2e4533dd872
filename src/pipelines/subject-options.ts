import { isNumber, isString, type OptionTypes } from "./option-types.js";

/** What requests say of what to draw, and what only some kinds of model ask. */
export interface SubjectOptions {
  /**
   * Of a class-conditional model: classes by name or number, one image each or `numImagesPerPrompt`. A name that fits in
   * its own case goes before those that fit in another.
   */
  classLabels?: string | number | readonly (string | number)[];
  /** Of a model with prompts: what to draw, one image each or `numImagesPerPrompt`. */
  prompt?: string | readonly string[];
  /** What the second text encoder reads, for each prompt or for all. Default: the prompt. */
  prompt2?: string | readonly string[];
  /** What guidance leads away from, for each prompt or for all. Without it `trueCfgScale` does nothing. */
  negativePrompt?: string | readonly string[];
  /** The same for the second text encoder. Default: the negative prompt. */
  negativePrompt2?: string | readonly string[];
  /** Strength of classifier-free guidance by a negative prompt; 1 or less turns it off and halves the work. */
  trueCfgScale?: number;
  /** Of the image in pixels. */
  height?: number;
  width?: number;
  /** Tokens that the second text encoder reads, 1 to 512; the image depends on it. */
  maxSequenceLength?: number;
}

/** The options that name what to draw, one of which every family has. */
export type SubjectOption = "classLabels" | "prompt";

const isText = (value: unknown): boolean => [value].flat().every(isString);
const isLabel = (value: unknown): boolean => [value].flat().every((label) => isString(label) || isNumber(label));
const TEXTS = "a text, or a list of them";

/** All of them, and of what type they are. */
export const subjectTypes: OptionTypes<SubjectOptions> = {
  classLabels: [isLabel, "a class name or number, or a list of them"],
  prompt: [isText, TEXTS],
  prompt2: [isText, TEXTS],
  negativePrompt: [isText, TEXTS],
  negativePrompt2: [isText, TEXTS],
  trueCfgScale: [isNumber, "a number"],
  height: [isNumber, "a number"],
  width: [isNumber, "a number"],
  maxSequenceLength: [isNumber, "a number"],
};
