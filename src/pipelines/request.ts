import { FemoError } from "../errors.js";
import {
  createSampler,
  type Sampler,
  type SamplerName,
  type SchedulerConfig,
  seedAfter,
  type TimestepSpacing,
} from "../samplers/index.js";
import type { Schedule } from "../schedules/index.js";
import {
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  cacheSettings,
  scheduleOf,
} from "./cache-options.js";
import { type ClassNames, classId } from "./labels.js";
import {
  checkInteger,
  checkTypes,
  isAbortSignal,
  isFloat32Array,
  isFunction,
  isNumber,
  isString,
  type OptionTypes,
} from "./option-types.js";
import type { StepRecord } from "./report.js";
import { checkTileSize } from "./tiled-decode.js";

/** Told after every step. */
export interface StepProgress extends StepRecord {
  readonly numInferenceSteps: number;
  /** Which images, by their index in the result, this step was for. */
  readonly images: readonly number[];
  /** The noisy images after the step, [images, C, H, W] row-major; not to be changed. */
  readonly latents: Float32Array;
}

/** What a request gives, as diffusers' `output_type`. */
export const outputTypes = ["image", "latent"] as const;
export type OutputType = (typeof outputTypes)[number];

/** A request. Only classLabels is required. */
export interface GenerateOptions {
  /**
   * Classes by name or number, one image each or `numImagesPerPrompt`. A name that fits in its own case goes before those
   * that fit in another.
   */
  classLabels: string | number | readonly (string | number)[];
  /** Images of each class, 1 to 100 000; the images of a request may take 2^32 bytes in all. Default 1. */
  numImagesPerPrompt?: number;
  /** Default 50. */
  numInferenceSteps?: number;
  /** Strength of classifier-free guidance; 1 or less turns it off and halves the work. Default 1.5. */
  guidanceScale?: number;
  /** "all", or guide the first so many channels only, as the DiT repository does with 3 of 4. Default "all". */
  guidanceChannels?: "all" | number;
  /**
   * Image i starts from `torch.randn` under seed + i, so each can be drawn again alone. Any integer that PyTorch takes,
   * -2^63 to 2^64 - 1, beyond 2^53 - 1 as a bigint; a negative one is 2^64 more, and after 2^64 - 1 comes 0. Default 0.
   */
  seed?: number | bigint;
  /** Initial noise in place of the seed's, [images, C, H, W] row-major. */
  latents?: Float32Array;
  /** Default: the model's own. */
  sampler?: SamplerName;
  /** Default: the model's own. What a spacing costs at this number of steps is in the report's `warnings`. */
  timestepSpacing?: TimestepSpacing;
  /** How to skip work; a method's name, or its name and fields. Default "none". */
  cache?: CacheOptions;
  /** Images computed together. Default 4. */
  batchSize?: number;
  /**
   * Decodes latents in tiles of so many latent pixels a side, a multiple of 4, which bounds the memory it takes. Default:
   * whole.
   */
  decodeTileSize?: number;
  /** "image", or "latent": the result has only its `latents`, and nothing is decoded. Default "image". */
  outputType?: OutputType;
  /** Stops between steps; the promise rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Called after every step; what it throws ends the request. */
  onStep?: (progress: StepProgress) => void;
}

/** A request with every default filled in and every value checked. */
export interface Request {
  readonly labels: readonly number[];
  /** 0 .. 2^64 - 1, bigints beyond 2^53 - 1; undefined with latents of one's own. */
  readonly seeds: readonly (number | bigint | undefined)[];
  readonly latents: Float32Array | undefined;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
  /** Whether there are rows without class. */
  readonly guided: boolean;
  readonly guidanceChannels: "all" | number;
  readonly batchSize: number;
  readonly sampler: Sampler;
  readonly settings: CacheSettings;
  readonly schedule: Schedule;
  readonly decodeTileSize: number | undefined;
  readonly outputType: OutputType;
  readonly signal: AbortSignal | undefined;
  readonly onStep: ((progress: StepProgress) => void) | undefined;
}

/** What a request is checked against. */
export interface RequestContext {
  readonly scheduler: SchedulerConfig;
  readonly classes: ClassNames;
  readonly presets: CachePresets;
  /** Shape of one sample, channels first. */
  readonly sampleShape: readonly number[];
  /** Pixels a side for each of the sample, if it is decoded. */
  readonly decoder?: { readonly stride: number } | undefined;
}

/**
 * Fills in a request's defaults and checks its values.
 * @throws FemoError E_OPTION naming the option, what was expected and what was found
 */
export function checkRequest(options: GenerateOptions, pipeline: RequestContext): Request {
  checkTypes(options, generateTypes, "classLabels");
  const { scheduler, presets, classes, sampleShape } = pipeline;
  const { numImagesPerPrompt = 1, numInferenceSteps = 50, guidanceScale = 1.5, guidanceChannels = "all" } = options;
  const { seed = 0, latents, batchSize = 4, decodeTileSize, outputType = "image", signal, onStep } = options;
  checkInteger("numImagesPerPrompt", numImagesPerPrompt, 1, 100_000);
  checkInteger("batchSize", batchSize, 1, 1024);
  checkTileSize("decodeTileSize", decodeTileSize);
  if (!Number.isFinite(guidanceScale)) {
    throw new FemoError("E_OPTION", `guidanceScale: expected a finite number, found ${guidanceScale}`);
  }
  const [channels, ...area] = sampleShape as [number, ...number[]];
  if (guidanceChannels !== "all") checkInteger("guidanceChannels", guidanceChannels, 1, channels);
  const given = [options.classLabels].flat() as (string | number)[];
  if (given.length === 0) throw new FemoError("E_OPTION", "classLabels: expected at least one class, found none");
  const ids = given.map((label) => classId(label, classes));
  checkResultSize(ids.length * numImagesPerPrompt, outputType, pipeline);
  const labels = ids.flatMap((id) => new Array<number>(numImagesPerPrompt).fill(id));
  const expected = labels.length * channels * area.reduce((a, b) => a * b, 1);
  if (latents && latents.length !== expected) {
    throw new FemoError(
      "E_OPTION",
      `latents: expected ${expected} values, [${[labels.length, channels, ...area].join(", ")}], found ${latents.length}`,
    );
  }
  const settings = cacheSettings(options.cache ?? "none", presets);
  checkFullSteps(settings, numInferenceSteps);
  const seeds = labels.map((_, i) => seedAfter(seed, i));
  return {
    labels,
    seeds: latents ? labels.map(() => undefined) : seeds,
    latents,
    numInferenceSteps,
    guidanceScale,
    guided: guidanceScale > 1,
    guidanceChannels,
    batchSize,
    sampler: createSampler(scheduler, { ...options, numInferenceSteps }),
    settings,
    schedule: scheduleOf(settings),
    decodeTileSize,
    outputType,
    signal,
    onStep,
  };
}

/** What one result may take: as many bytes as the longest array that every supported Node can hold. */
export const MAX_RESULT_BYTES = 2 ** 32;

/** Refuses counts whose result would not fit, before memory is asked for. */
function checkResultSize(images: number, outputType: OutputType, { sampleShape, decoder }: RequestContext): void {
  const [, height, width] = sampleShape as [number, number, number];
  const pixels = outputType === "image" ? height * width * (decoder?.stride ?? 1) ** 2 : 0;
  const bytes = 4 * sampleShape.reduce((a, b) => a * b, 1) + 3 * pixels;
  const most = Math.floor(MAX_RESULT_BYTES / bytes);
  if (images <= most) return;
  throw new FemoError(
    "E_OPTION",
    `classLabels, numImagesPerPrompt: expected at most ${most} images in all, as each takes ${bytes} bytes of a result ` +
      `that may take ${MAX_RESULT_BYTES}, found ${images}: split the request`,
  );
}

/** @throws FemoError E_OPTION if a full step comes after the last */
function checkFullSteps(settings: CacheSettings, numInferenceSteps: number): void {
  const beyond = settings.method === "none" ? undefined : settings.fullSteps?.find((step) => step >= numInferenceSteps);
  if (beyond === undefined) return;
  throw new FemoError(
    "E_OPTION",
    `cache: fullSteps: expected steps from 0 to ${numInferenceSteps - 1}, the last of ${numInferenceSteps}, found ${beyond}`,
  );
}

/** A method by name, or an object that may have it, which `cacheSettings` looks into. */
function isCache(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return isString(value);
  const { method } = value as { method?: unknown };
  return method === null || !["object", "bigint"].includes(typeof method);
}

export const generateTypes: OptionTypes<GenerateOptions> = {
  classLabels: [
    (value) => [value].flat().every((label) => isString(label) || isNumber(label)),
    "a class name or number, or a list of them",
  ],
  numImagesPerPrompt: [isNumber, "a number"],
  numInferenceSteps: [isNumber, "a number"],
  guidanceScale: [isNumber, "a number"],
  guidanceChannels: [(value) => value === "all" || isNumber(value), '"all" or a number'],
  seed: [(value) => isNumber(value) || typeof value === "bigint", "a number or a bigint"],
  latents: [isFloat32Array, "a Float32Array"],
  sampler: [isString, "a string"],
  timestepSpacing: [isString, "a string"],
  cache: [isCache, "the name of a method, or an object with the name as its method"],
  batchSize: [isNumber, "a number"],
  decodeTileSize: [isNumber, "a number"],
  outputType: [(value) => outputTypes.includes(value as OutputType), `one of ${outputTypes.join(", ")}`],
  signal: [isAbortSignal, "an AbortSignal"],
  onStep: [isFunction, "a function"],
};
