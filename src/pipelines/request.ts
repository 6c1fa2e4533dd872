import type { Backbone, Observer, StepRecord } from "../denoising/index.js";
import { FemoError } from "../errors.js";
import { type Bindings, sizeOf } from "../graph/index.js";
import { checkTileSize } from "../images/index.js";
import {
  type CacheOptions,
  type CacheSettings,
  type ChosenCache,
  chosenCache,
  chosenSolver,
  type Method,
  methodOf,
  type QualityName,
  type Sampling,
} from "../methods/index.js";
import {
  chosenOver,
  createSampler,
  isStochastic,
  ownSteps,
  type Sampler,
  type SamplerOption,
  type SamplerSettings,
  seedAfter,
  settingsOf,
  type TimestepSpacing,
  trainingChainDefaults,
} from "../samplers/index.js";
import type { Drawing, PipelineParts, Subject } from "./family.js";
import {
  checkFinite,
  checkInteger,
  checkTypes,
  isAbortSignal,
  isFloat32Array,
  isFunction,
  isNumber,
  isString,
  type OptionTypes,
} from "./option-types.js";
import { partOfSteps } from "./part-of-steps.js";
import { repaints } from "./repainting.js";
import { type SubjectOptions, subjectTypes } from "./subject-options.js";

/** Told after every run of the network. */
export interface StepProgress extends StepRecord {
  readonly numInferenceSteps: number;
  /** The noisy images after the step, of those that the record names, [images, C, H, W] row-major; not to be changed. */
  readonly latents: Float32Array;
}

/** What a request is at; see `GenerateOptions.onPhase`. */
export type Phase = "encoding" | "conditioning" | "denoising" | "decoding";

/** What a request gives, as diffusers' `output_type`. */
export const outputTypes = ["image", "latent"] as const;
/** One of `outputTypes`. */
export type OutputType = (typeof outputTypes)[number];

/** A request. Required is what to draw: `classLabels` of a class-conditional model, `prompt` of one with prompts. */
export interface GenerateOptions extends SubjectOptions {
  /** Images of each class or prompt, 1 to 100 000; the images of a request may take 2^32 bytes in all. Default 1. */
  numImagesPerPrompt?: number;
  /** Default: as many as the sampler has timesteps of its own, or the model's own number: 50 of DiT, 28 of FLUX. */
  numInferenceSteps?: number;
  /**
   * Of a class-conditional model the strength of classifier-free guidance; 1 or less turns it off and halves the work. Of
   * FLUX what the model was distilled to take as an input. Default: the model's own, 1.5 of DiT, 3.5 of FLUX.
   */
  guidanceScale?: number;
  /** "all", or guide the first so many channels only, as the DiT repository does with 3 of 4. Default "all". */
  guidanceChannels?: "all" | number;
  /**
   * Image i starts from `torch.randn` under seed + i, so each can be drawn again alone. Any integer that PyTorch takes,
   * -2^63 to 2^64 - 1, beyond 2^53 - 1 as a bigint; a negative one is 2^64 more, and after 2^64 - 1 comes 0. Default 0.
   */
  seed?: number | bigint;
  /** Initial noise in place of the seed's, [images, C, H, W] row-major. A stochastic sampler still draws by the seed. */
  latents?: Float32Array;
  /** A sampler by its name, or name and settings, or a solver as data. Default: the model's own. */
  sampler?: SamplerOption;
  /** Default: the model's own. What a spacing costs at this number of steps is in the report's `warnings`. */
  timestepSpacing?: TimestepSpacing;
  /**
   * How to skip work; a method's name, or its name and fields; or what to trade for speed, "quality", "balanced" or
   * "fast", on a model on which that was measured. Default "none".
   */
  cache?: CacheOptions | QualityName;
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
  /**
   * Called when a request comes to what takes long: "encoding" its prompts, "conditioning", "denoising" a batch, "decoding"
   * it. What it throws ends the request.
   */
  onPhase?: (phase: Phase) => void;
  /** Called after every step, and waited for; what it throws ends the request. */
  onStep?: (progress: StepProgress) => unknown;
}

/** A request with every default filled in and every value checked. */
export interface Request {
  readonly subjects: readonly Subject[];
  /** What the symbols of the model's inputs are. */
  readonly sizes: Bindings;
  /** What the family's reports say besides. */
  readonly settings: Drawing["settings"];
  /** What the user should know, a sentence each. */
  readonly notes: readonly string[];
  /** 0 .. 2^64 - 1, bigints beyond 2^53 - 1; undefined if nothing is drawn, as latents are given. */
  readonly seeds: readonly (number | bigint | undefined)[];
  readonly latents: Float32Array | undefined;
  readonly numInferenceSteps: number;
  /** 1 or less: not guided. */
  readonly guidanceScale: number;
  readonly guidanceChannels: "all" | number;
  readonly guidanceRescale: number;
  /** See `Drawing`. */
  readonly strength: number | undefined;
  readonly batchSize: number;
  readonly sampler: Sampler;
  /** What the request says of it besides its name, if it does. */
  readonly samplerSettings: SamplerSettings | undefined;
  readonly cache: ChosenCache;
  readonly method: Method;
  /** What runs it. */
  readonly backbone: Backbone;
  readonly decodeTileSize: number | undefined;
  readonly outputType: OutputType;
  readonly signal: AbortSignal | undefined;
  readonly onPhase: ((phase: Phase) => void) | undefined;
  /** Of studies, which look at what graphs give on the way. */
  readonly observe?: Observer;
}

/**
 * Fills in a request's defaults and checks its values.
 * @throws FemoError E_OPTION naming the option, what was expected and what was found
 */
export function checkRequest(options: GenerateOptions, pipeline: PipelineParts): Request {
  const { scheduler, caching, family, backbone, decoder } = pipeline;
  checkFamily(options, family);
  checkTypes(options, { ...generateTypes, ...family.options }, family.subjectOption);
  const { numImagesPerPrompt = 1, guidanceChannels = "all" } = options;
  const { guidanceScale = family.defaults.guidanceScale } = options;
  const { numInferenceSteps = ownSteps(options.sampler) ?? family.defaults.numInferenceSteps } = options;
  const { seed = 0, batchSize = 4, decodeTileSize, outputType = "image", signal, onPhase } = options;
  const latents = options.latents?.slice(); // what becomes of the caller's does not matter any more
  checkInteger("numImagesPerPrompt", numImagesPerPrompt, 1, 100_000);
  checkInteger("batchSize", batchSize, 1, 1024);
  checkTileSize("decodeTileSize", decodeTileSize);
  checkFinite("guidanceScale", guidanceScale);
  const drawing = family.drawing(options);
  const { subjects: named, sizes, sampling, settings, notes, guidanceRescale = 0, strength } = drawing;
  const sampleDims = backbone.sampleDims(sizes);
  if (guidanceChannels !== "all") checkInteger("guidanceChannels", guidanceChannels, 1, sampleDims[0] as number);
  if (named.length === 0) {
    throw new FemoError("E_OPTION", `${family.subjectOption}: expected at least one, found none`);
  }
  checkResultSize(
    named.length * numImagesPerPrompt,
    outputType,
    sampleDims,
    decoder?.stride ?? 1,
    family.subjectOption,
  );
  const subjects = named.flatMap((subject) => new Array<Subject>(numImagesPerPrompt).fill(subject));
  const expected = subjects.length * sizeOf(sampleDims);
  if (latents && latents.length !== expected) {
    throw new FemoError(
      "E_OPTION",
      `latents: expected ${expected} values, [${[subjects.length, ...sampleDims].join(", ")}], found ${latents.length}`,
    );
  }
  checkBeginnings(drawing, latents, repaints(backbone.model));
  const bad = latents?.findIndex((x) => !Number.isFinite(x)) ?? -1;
  if (bad >= 0) throw new FemoError("E_OPTION", `latents: expected finite numbers, found ${latents?.[bad]} at ${bad}`);
  const inPlace = chosenSolver(options.cache ?? "none", caching, Number(settings.trueCfgScale ?? guidanceScale));
  const { sampler: chosenSampler, timestepSpacing } = options;
  const steps = inPlace?.solver.timesteps.length ?? numInferenceSteps;
  const whole = inPlace
    ? createSampler(scheduler, { sampler: inPlace.solver, numInferenceSteps: steps })
    : createSampler(scheduler, {
        ...chosenOver(sampling, { sampler: chosenSampler, timestepSpacing }),
        numInferenceSteps,
      });
  const { numTrainTimesteps = trainingChainDefaults.numTrainTimesteps } = scheduler;
  const sampler = partOfSteps(whole, drawing, steps, numTrainTimesteps);
  const samplerSettings = inPlace ? undefined : settingsOf(chosenSampler);
  const cache = chosenCache(options.cache ?? "none", caching, { ...samplingOf(sampler), samplerSettings });
  checkFullSteps(cache.settings, sampler.timesteps.length);
  const seeds = subjects.map((_, i) => (latents && !isStochastic(sampler) ? undefined : seedAfter(seed, i)));
  const method = methodOf(cache.settings, backbone.model);
  method.checkSteps?.(sampler.timesteps.length);
  return {
    backbone: backbone.forMethod(method, sizes),
    subjects,
    sizes,
    settings,
    notes: [...(pipeline.notes ?? []), ...notes, ...(inPlace?.notes ?? [])],
    seeds,
    latents,
    numInferenceSteps: steps,
    guidanceScale,
    guidanceChannels,
    guidanceRescale,
    strength,
    batchSize,
    sampler,
    samplerSettings,
    cache,
    method,
    decodeTileSize,
    outputType,
    signal,
    onPhase,
  };
}

/** @throws FemoError E_OPTION if an option is one of another kind of model */
export function checkFamily(options: GenerateOptions, { subjectOption, options: own }: PipelineParts["family"]): void {
  for (const name of Object.keys(subjectTypes)) {
    if (options?.[name as keyof SubjectOptions] === undefined || Object.hasOwn(own, name)) continue;
    const kind = subjectOption === "prompt" ? "prompts" : "classes";
    throw new FemoError(
      "E_OPTION",
      `${name}: not of this model, which draws ${kind}: it takes ${Object.keys(own).join(", ")}`,
    );
  }
}

/** @throws FemoError E_OPTION if images begin with two things at once, or a network that repaints is given nothing to repaint */
function checkBeginnings(
  { subjects, denoisingStart }: Drawing,
  latents: Float32Array | undefined,
  needsMask: boolean,
): void {
  if (denoisingStart !== undefined && !latents) {
    throw new FemoError("E_OPTION", "denoisingStart: expected latents beside it, which it goes on from, found none");
  }
  if (latents && subjects.some(({ beginning }) => beginning)) {
    throw new FemoError(
      "E_OPTION",
      "latents: expected none beside image, which begins otherwise: leave one of them out",
    );
  }
  if (!needsMask || subjects.every(({ beginning }) => beginning?.mask)) return;
  throw new FemoError("E_OPTION", "maskImage: expected one, and an image, as this model repaints pictures; found none");
}

/** How a sampler samples. */
export const samplingOf = ({ name, spacing, timesteps }: Sampler): Sampling => ({
  sampler: name,
  timestepSpacing: spacing,
  numInferenceSteps: timesteps.length,
});

/** What one result may take: as many bytes as the longest array that every supported Node can hold. */
export const MAX_RESULT_BYTES = 2 ** 32;

/** Refuses counts whose result would not fit, before memory is asked for. */
function checkResultSize(
  images: number,
  outputType: OutputType,
  sampleDims: readonly number[],
  stride: number,
  option: string,
): void {
  const [, height, width] = sampleDims as [number, number, number];
  const pixels = outputType === "image" ? height * width * stride ** 2 : 0;
  const bytes = 4 * sizeOf(sampleDims) + 3 * pixels;
  const most = Math.floor(MAX_RESULT_BYTES / bytes);
  if (images <= most) return;
  throw new FemoError(
    "E_OPTION",
    `${option}, numImagesPerPrompt: expected at most ${most} images in all, as each takes ${bytes} bytes of a result ` +
      `that may take ${MAX_RESULT_BYTES}, found ${images}: split the request`,
  );
}

/** @throws FemoError E_OPTION if a full step comes after the last */
export function checkFullSteps(settings: CacheSettings, numInferenceSteps: number): void {
  const steps = "fullSteps" in settings && typeof settings.fullSteps === "object" ? settings.fullSteps : [];
  const beyond = steps.find((step) => step >= numInferenceSteps);
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

/** A sampler by name, or an object that `createSampler` looks into. */
const isSampler = (value: unknown): boolean =>
  isString(value) || (typeof value === "object" && isString((value as { sampler?: unknown } | null)?.sampler));

/** Of the options that requests of every family have. */
export const generateTypes: OptionTypes<Omit<GenerateOptions, keyof SubjectOptions>> = {
  numImagesPerPrompt: [isNumber, "a number"],
  numInferenceSteps: [isNumber, "a number"],
  guidanceScale: [isNumber, "a number"],
  guidanceChannels: [(value) => value === "all" || isNumber(value), '"all" or a number'],
  seed: [(value) => isNumber(value) || typeof value === "bigint", "a number or a bigint"],
  latents: [isFloat32Array, "a Float32Array"],
  sampler: [isSampler, "a name, or an object with a name as its sampler"],
  timestepSpacing: [isString, "a string"],
  cache: [isCache, "the name of a method, or an object with the name as its method"],
  batchSize: [isNumber, "a number"],
  decodeTileSize: [isNumber, "a number"],
  outputType: [(value) => outputTypes.includes(value as OutputType), `one of ${outputTypes.join(", ")}`],
  signal: [isAbortSignal, "an AbortSignal"],
  onPhase: [isFunction, "a function"],
  onStep: [isFunction, "a function"],
};
