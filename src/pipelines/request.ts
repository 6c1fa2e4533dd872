import { FemoError } from "../errors.js";
import {
  createSampler,
  type Sampler,
  type SamplerName,
  type SchedulerConfig,
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
  /** Classes by name or number: one image each, or `numImages` each. */
  classLabels: string | number | readonly (string | number)[];
  /** Images of each class. Default 1. */
  numImages?: number;
  /** Default 50. */
  numInferenceSteps?: number;
  /** Strength of classifier-free guidance; 1 or less turns it off and halves the work. Default 1.5. */
  guidanceScale?: number;
  /** "all", or guide the first so many channels only, as the DiT repository does with 3 of 4. Default "all". */
  guidanceChannels?: "all" | number;
  /** Image i starts from `torch.randn` under seed + i, so each can be drawn again alone. Default 0. */
  seed?: number;
  /** Initial noise in place of the seed's, [images, C, H, W] row-major. */
  latents?: Float32Array;
  /** Default: the model's own. */
  sampler?: SamplerName;
  /** Default: the model's own. */
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
  readonly seeds: readonly (number | undefined)[];
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
}

/**
 * Fills in a request's defaults and checks its values.
 * @throws FemoError E_OPTION naming the option, what was expected and what was found
 */
export function checkRequest(options: GenerateOptions, pipeline: RequestContext): Request {
  checkTypes(options);
  const { scheduler, presets, classes, sampleShape } = pipeline;
  const { numImages = 1, numInferenceSteps = 50, guidanceScale = 1.5, guidanceChannels = "all", seed = 0 } = options;
  const { latents, batchSize = 4, decodeTileSize, outputType = "image", signal, onStep } = options;
  checkInteger("numImages", numImages, 1, 100_000);
  checkInteger("batchSize", batchSize, 1, 1024);
  checkInteger("seed", seed, 0, Number.MAX_SAFE_INTEGER - 1e9);
  checkTileSize("decodeTileSize", decodeTileSize);
  if (!Number.isFinite(guidanceScale)) {
    throw new FemoError("E_OPTION", `guidanceScale: expected a finite number, found ${guidanceScale}`);
  }
  const [channels, ...area] = sampleShape as [number, ...number[]];
  if (guidanceChannels !== "all") checkInteger("guidanceChannels", guidanceChannels, 1, channels);
  const given = [options.classLabels].flat() as (string | number)[];
  if (given.length === 0) throw new FemoError("E_OPTION", "classLabels: expected at least one class, found none");
  const labels = given
    .map((label) => classId(label, classes))
    .flatMap((label) => new Array<number>(numImages).fill(label));
  const expected = labels.length * channels * area.reduce((a, b) => a * b, 1);
  if (latents && latents.length !== expected) {
    throw new FemoError(
      "E_OPTION",
      `latents: expected ${expected} values, [${[labels.length, channels, ...area].join(", ")}], found ${latents.length}`,
    );
  }
  const settings = cacheSettings(options.cache ?? "none", presets);
  return {
    labels,
    seeds: labels.map((_, i) => (latents ? undefined : seed + i)),
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

/** What plain JavaScript may pass: each option's type, and why a value does not fit. */
const optionTypes: { readonly [K in keyof Required<GenerateOptions>]: [(value: unknown) => boolean, string] } = {
  classLabels: [
    (value) => [value].flat().every((label) => typeof label === "string" || typeof label === "number"),
    "a class name or number, or a list of them",
  ],
  numImages: [isNumber, "a number"],
  numInferenceSteps: [isNumber, "a number"],
  guidanceScale: [isNumber, "a number"],
  guidanceChannels: [(value) => value === "all" || isNumber(value), '"all" or a number'],
  seed: [isNumber, "a number"],
  latents: [(value) => value instanceof Float32Array, "a Float32Array"],
  sampler: [(value) => typeof value === "string", "a string"],
  timestepSpacing: [(value) => typeof value === "string", "a string"],
  cache: [(value) => typeof value === "string" || (typeof value === "object" && value !== null), "a name or an object"],
  batchSize: [isNumber, "a number"],
  decodeTileSize: [isNumber, "a number"],
  outputType: [(value) => outputTypes.includes(value as OutputType), `one of ${outputTypes.join(", ")}`],
  signal: [(value) => value instanceof AbortSignal, "an AbortSignal"],
  onStep: [(value) => typeof value === "function", "a function"],
};

function checkTypes(options: GenerateOptions): void {
  for (const name of new Set(["classLabels", ...Object.keys(options)])) {
    const value = options[name as keyof GenerateOptions];
    const type = Object.hasOwn(optionTypes, name) ? optionTypes[name as keyof GenerateOptions] : undefined;
    if (!type) {
      throw new FemoError(
        "E_OPTION",
        `${name}: there is no such option; there are ${Object.keys(optionTypes).join(", ")}`,
      );
    }
    const [fits, expected] = type;
    if (value === undefined && name !== "classLabels") continue;
    if (!fits(value)) throw new FemoError("E_OPTION", `${name}: expected ${expected}, found ${describe(value)}`);
  }
}

function isNumber(value: unknown): boolean {
  return typeof value === "number";
}

const describe = (value: unknown): string =>
  typeof value === "object" && value !== null
    ? (value.constructor?.name ?? "an object")
    : (JSON.stringify(value) ?? String(value));

function checkInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new FemoError("E_OPTION", `${name}: expected an integer from ${min} to ${max}, found ${value}`);
  }
}
