import type { RgbImage } from "../images/index.js";
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
  /** Of FLUX: tokens that the second text encoder reads, 1 to 512; the image depends on it. */
  maxSequenceLength?: number;
  /** Of Stable Diffusion: how much of what guidance adds to the spread of the prediction is taken back, 0 to 1. Default 0. */
  guidanceRescale?: number;
  /** Of Stable Diffusion: layers of CLIP left out at its end, for the prompt alone. */
  clipSkip?: number;
  /** Of SDXL, [height, width] or [top, left] in pixels: the size of the picture that the image could be a crop of, */
  originalSize?: readonly [number, number];
  /** where it was cropped, */
  cropsCoordsTopLeft?: readonly [number, number];
  /** and the size that it has. Default: the image's own, not cropped. */
  targetSize?: readonly [number, number];
  /** The same for what guidance leads away from. Default: as for the image. */
  negativeOriginalSize?: readonly [number, number];
  negativeCropsCoordsTopLeft?: readonly [number, number];
  negativeTargetSize?: readonly [number, number];
  /** Of Stable Diffusion: a picture to begin with, in place of noise alone; for each prompt or for all. Its sides are the image's. */
  image?: RgbImage | readonly RgbImage[];
  /** How much of it is noise at first, above 0 to 1: so much of the steps is run. Default 0.8, of SDXL 0.3; with a mask 1. */
  strength?: number;
  /** What of the picture is drawn anew, white, and what stays, black. */
  maskImage?: RgbImage | readonly RgbImage[];
  /**
   * Of SDXL, for a base and a refiner that share the steps: above 0 to below 1, the part of the noise that is gone when the
   * request ends, to be gone on with by another one; give it `outputType: "latent"`.
   */
  denoisingEnd?: number;
  /** The part that is gone in `latents`, which the request goes on from: what the one before had as `denoisingEnd`. */
  denoisingStart?: number;
  /** Of SDXL's refiner. Default 6, */
  aestheticScore?: number;
  /** and 2.5. */
  negativeAestheticScore?: number;
}

/** The options of which there may be a list, one for each class or prompt. */
export const listedOptions = [
  ...(["classLabels", "prompt", "prompt2", "negativePrompt", "negativePrompt2", "image", "maskImage"] as const),
] satisfies readonly (keyof SubjectOptions)[];

/** The options that name what to draw, one of which every family has. */
export type SubjectOption = "classLabels" | "prompt";

const isText = (value: unknown): boolean => [value].flat().every(isString);
const isLabel = (value: unknown): boolean => [value].flat().every((label) => isString(label) || isNumber(label));
const isImage = (value: unknown): boolean => {
  if (typeof value !== "object" || value === null) return false;
  const { width, height, data } = value as Record<string, unknown>;
  return isNumber(width) && isNumber(height) && ArrayBuffer.isView(data);
};
const isImages = (value: unknown): boolean => (Array.isArray(value) ? value.every(isImage) : isImage(value));
const IMAGES = "an image, { width, height, data } in RGB, or a list of them";
const isPair = (value: unknown): boolean => Array.isArray(value) && value.length === 2 && value.every(Number.isFinite);
const PAIR = "a pair of numbers, the height or top first";
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
  guidanceRescale: [isNumber, "a number"],
  clipSkip: [isNumber, "a number"],
  originalSize: [isPair, PAIR],
  cropsCoordsTopLeft: [isPair, PAIR],
  targetSize: [isPair, PAIR],
  negativeOriginalSize: [isPair, PAIR],
  negativeCropsCoordsTopLeft: [isPair, PAIR],
  negativeTargetSize: [isPair, PAIR],
  image: [isImages, IMAGES],
  strength: [isNumber, "a number"],
  maskImage: [isImages, IMAGES],
  denoisingEnd: [isNumber, "a number"],
  denoisingStart: [isNumber, "a number"],
  aestheticScore: [isNumber, "a number"],
  negativeAestheticScore: [isNumber, "a number"],
};
