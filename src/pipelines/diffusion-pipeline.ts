import type { ModelDtype } from "../denoising/index.js";
import { cachesOf, graphKinds, graphOf, kernelsOf, type Observer } from "../denoising/index.js";
import { FemoError } from "../errors.js";
import { sizeOf } from "../graph/index.js";
import { type RgbImage, toRgb } from "../images/index.js";
import {
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  chosenCache,
  type FittedSolver,
  type Method,
  methodOf,
  type PlacedSchedule,
  type Qualities,
  type QualityName,
} from "../methods/index.js";
import type { ModelPlace } from "../platform/platform.js";
import type { EngineDevice } from "../runtime/engine.js";
import { chosenOver, createSampler, type SamplerChoice, type SchedulerConfig, settingsOf } from "../samplers/index.js";
import type { Drawing, Family, PipelineParts } from "./family.js";
import type { ClassNames } from "./labels.js";
import { plannedFlops } from "./planned-flops.js";
import type { PretrainedOptions } from "./pretrained-options.js";
import type { GenerationReport } from "./report.js";
import { checkFamily, checkRequest, type GenerateOptions, type StepProgress, samplingOf } from "./request.js";
import type { GenerationResult } from "./result.js";
import { runRequest } from "./run-request.js";
import type { SubjectOption } from "./subject-options.js";

/** The steps of a request as they are done, and in the end its result. */
export interface GenerationStream extends AsyncIterableIterator<StepProgress> {
  /** Rejects as the iteration throws, or with E_RUNTIME if it is left before its last step. */
  readonly result: Promise<GenerationResult>;
}

const sizeOptions = ["height", "width", "maxSequenceLength"] as const satisfies readonly (keyof GenerateOptions)[];
type RequestSizes = Pick<GenerateOptions, (typeof sizeOptions)[number]>;

/** What a request says of sizes, and nothing else of it. */
const sizesOf = (request: RequestSizes): RequestSizes =>
  Object.fromEntries(sizeOptions.flatMap((name) => (request[name] === undefined ? [] : [[name, request[name]]])));

/** What a request draws that names the family's first example, in the sizes of another. */
const exampleOf = (family: Family, request: RequestSizes = {}): Drawing =>
  family.drawing({ ...sizesOf(request), [family.subjectOption]: family.examples[0] });

/** Images from a diffusion model. Requests may overlap; their steps take turns. */
export class DiffusionPipeline {
  readonly #parts: PipelineParts;

  private constructor(parts: PipelineParts) {
    this.#parts = parts;
  }

  /** @internal Of parts that belong together. */
  static of(parts: PipelineParts): DiffusionPipeline {
    return new DiffusionPipeline(parts);
  }

  /** Model name, for reports. */
  get name(): string {
    return this.#parts.name;
  }

  /** What its linear layers compute in. */
  get dtype(): ModelDtype {
    return this.#parts.backbone.dtype;
  }

  /** What computes. */
  get device(): EngineDevice {
    return this.#parts.backbone.sessions.engine.device;
  }

  /** Class numbers and their names; a class without a name is called by its number. */
  get classes(): ClassNames {
    return this.#parts.family.classes;
  }

  /** Measured defaults of each caching method for this model. */
  get presets(): CachePresets {
    return this.#parts.caching.presets;
  }

  /** Where full steps were placed for this model. */
  get schedules(): readonly PlacedSchedule[] {
    return this.#parts.caching.schedules;
  }

  /** Solvers that were fitted to this model. */
  get solvers(): readonly FittedSolver[] {
    return this.#parts.caching.solvers;
  }

  /** What it offers to trade for speed, and how far images were measured to be from uncached ones. */
  get qualities(): Qualities {
    return this.#parts.caching.qualities;
  }

  /** The levels at which features can be kept, from the finest to the coarsest; last x0, which every model has. */
  get levels(): readonly string[] {
    return this.#parts.caching.levels;
  }

  /** The chains of blocks that it runs through, and how many each has. */
  get chains(): Readonly<Record<string, number>> {
    return this.#parts.backbone.model.chains;
  }

  /** Its tensors that methods may look at. */
  get marks(): readonly string[] {
    return this.#parts.backbone.model.marks;
  }

  /** Its sampler and that sampler's settings, as far as they are given. */
  get scheduler(): SchedulerConfig {
    return this.#parts.scheduler;
  }

  /** The option by which requests say what to draw: classes or prompts. */
  get subjectOption(): SubjectOption {
    return this.#parts.family.subjectOption;
  }

  /** Some of what it can draw, as that option takes it. */
  get examples(): readonly (string | number)[] {
    return this.#parts.family.examples;
  }

  /** What requests that do not say go by. */
  get defaults(): { readonly numInferenceSteps: number; readonly guidanceScale: number } {
    const { numInferenceSteps, guidanceScale } = this.#parts.family.defaults;
    return { numInferenceSteps, guidanceScale };
  }

  /**
   * [height, width] of a request's images in pixels.
   * @param options what it says of that. Default: nothing, as the model draws by itself
   * @throws FemoError E_OPTION if the model does not draw in that size
   */
  imageSize(options: Pick<GenerateOptions, "height" | "width"> = {}): readonly [number, number] {
    const { backbone, family, decoder } = this.#parts;
    checkFamily(sizesOf(options), family);
    const { sizes } = exampleOf(family, options);
    const [, ...area] = backbone.sampleDims(sizes) as [number, number, number];
    return area.map((side) => side * (decoder?.stride ?? 1)) as [number, number];
  }

  /**
   * Draws images.
   * @throws FemoError E_OPTION if an option is out of range, E_RUNTIME if a value is not finite; the signal's reason if
   *   it was aborted
   */
  async generate(options: GenerateOptions): Promise<GenerationResult> {
    const stream = this.stream(options);
    for await (const step of stream) await options.onStep?.(step);
    return stream.result;
  }

  /**
   * Draws images, a step at a time, as fast as its steps are taken. `onStep` is not called.
   * @throws FemoError E_OPTION at once if an option is out of range; what `generate` throws else, at the step that meets it
   */
  stream(options: GenerateOptions): GenerationStream {
    const steps = runRequest(this.#parts, checkRequest(options, this.#parts));
    let resolve: (result: GenerationResult) => void;
    let reject: (error: unknown) => void;
    const result = new Promise<GenerationResult>((...settle) => {
      [resolve, reject] = settle;
    });
    result.catch(() => {}); // whoever iterates is told already
    const told = async (next: Promise<IteratorResult<StepProgress, GenerationResult>>) => {
      try {
        const { done, value } = await next;
        if (!done) return { done: false as const, value };
        if (value) resolve(value);
        else reject(new FemoError("E_RUNTIME", "the stream was left before its last step"));
      } catch (error) {
        reject(error);
        throw error;
      }
      return { done: true as const, value: undefined };
    };
    return {
      result,
      next: () => told(steps.next()),
      return: () => told(steps.return(undefined as never)),
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /**
   * The settings with which a request runs that chooses this cache.
   * @param sampling how it samples. Default: the model's own way, and as many steps as its requests take by default
   * @throws FemoError E_OPTION naming each bad field
   */
  cacheSettings(cache: CacheOptions | QualityName, sampling: Partial<SamplerChoice> = {}): CacheSettings {
    const { scheduler, caching, family } = this.#parts;
    const { numInferenceSteps } = family.defaults;
    const own = exampleOf(family).sampling;
    const sampler = createSampler(scheduler, { numInferenceSteps, ...chosenOver(own, sampling) });
    return chosenCache(cache, caching, { ...samplingOf(sampler), samplerSettings: settingsOf(sampling.sampler) })
      .settings;
  }

  /**
   * What the report of a request with these options will count as its floating-point operations, without running it.
   * @returns undefined if its method looks at the images before it decides what to compute
   * @throws FemoError E_OPTION if an option is out of range
   */
  plannedFlops(options: GenerateOptions): GenerationReport["flops"] | undefined {
    return plannedFlops(checkRequest(options, this.#parts));
  }

  /**
   * @internal Names of the features that there are at one of the model's own levels, in their order.
   * @throws FemoError E_GRAPH if it has no such level
   */
  sites(level: string): string[] {
    return this.#parts.backbone.cut({ capture: { level } }).captured.map(({ name }) => name);
  }

  /**
   * @internal Draws by a method of one's own, and shows what its graphs give on the way.
   * @throws FemoError as `generate`
   */
  async observe(options: GenerateOptions, method: Method, observe: Observer): Promise<void> {
    const request = checkRequest({ ...options, cache: "none", outputType: "latent" }, this.#parts);
    for await (const step of runRequest(this.#parts, { ...request, method, observe })) await options.onStep?.(step);
  }

  /**
   * What latents look like, such as those that `onStep` is given: the images of a request that ended there.
   * @param latents [images, C, H, W] row-major
   * @param options the request's sizes, as it says them
   * @throws FemoError E_OPTION if they are not whole images of that size
   */
  async decode(
    latents: Float32Array,
    {
      decodeTileSize,
      signal,
      ...options
    }: Pick<GenerateOptions, "height" | "width" | "decodeTileSize" | "signal"> = {},
  ): Promise<RgbImage[]> {
    const { backbone, family, decoder } = this.#parts;
    checkFamily(sizesOf(options), family);
    const dims = backbone.sampleDims(exampleOf(family, options).sizes) as [number, number, number];
    const size = sizeOf(dims);
    if (latents.length === 0 || latents.length % size !== 0) {
      throw new FemoError("E_OPTION", `latents: expected images of ${size} elements, found ${latents.length} elements`);
    }
    const images: RgbImage[] = [];
    for (let at = 0; at < latents.length; at += size) {
      const planes = { dims, data: latents.subarray(at, at + size) };
      images.push(toRgb(decoder ? await decoder.decode(planes, { tileSize: decodeTileSize, signal }) : planes));
    }
    return images;
  }

  /**
   * Loads what a request with these options will run, so that its first step does not wait.
   * @param request its sizes, which graphs of some methods must know. Default: the model's own
   */
  async warmUp(
    cache: CacheOptions | QualityName = "none",
    request: Pick<GenerateOptions, "height" | "width" | "maxSequenceLength"> = {},
  ): Promise<void> {
    const { backbone: all, decoder, family } = this.#parts;
    const method = methodOf(this.cacheSettings(cache), all.model);
    const { sizes } = exampleOf(family, request);
    const backbone = all.forMethod(method, sizes);
    for (const hoisted of ["condition", "pair"] as const) {
      if (backbone.cut({ hoisted }).hoisted.length > 0) await backbone.load({ hoisted });
    }
    const cuts = [...method.policy.looks.map(({ cut }) => cut), ...graphKinds(method).map(([, cut]) => cut)];
    for (const cut of cuts) await backbone.load(graphOf(cut, method));
    for (const cache of cachesOf(method)) {
      for (const { network } of kernelsOf(backbone, cache)) await network.load();
    }
    await decoder?.network.load();
  }

  /** Frees the model and ends the engine. */
  async close(): Promise<void> {
    await this.#parts.backbone.sessions.engine.close();
  }

  /** As `close`, at the end of an `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Opens a pipeline.
   * @param place the name of an embedded model, "avatars-flux" or "avatars-dit"; a folder in diffusers' layout; a file of the original
   *   release of DiT or FLUX.1, "DiT-XL-2-256x256.pt", "flux1-dev.safetensors", with options for the parts that it lacks; or
   *   a model on the Hugging Face Hub, "owner/name" or "owner/name@revision", which is downloaded unless the cache has it; in a browser the
   *   address of such a folder or file, a `File` that the user picked, or the files of a folder
   * @throws FemoError E_FILE, E_CONFIG or E_WEIGHT if there is no such model or it is not whole; E_NETWORK or E_ACCESS if
   *   it cannot be downloaded; E_OPTION if an option is unknown or wrong; the signal's reason if it was aborted
   */
  static async fromPretrained(place: ModelPlace, options: PretrainedOptions = {}): Promise<DiffusionPipeline> {
    const { openPretrained } = await import("./pretrained.js");
    return new DiffusionPipeline(await openPretrained(place, options));
  }
}
