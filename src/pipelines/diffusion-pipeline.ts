import { FemoError } from "../errors.js";
import { names } from "../graph/trace.js";
import type { RgbImage } from "../images/index.js";
import { autoencoderKLConfigFromJson } from "../models/autoencoder-kl.js";
import { type DiTConfig, dit, ditConfigFromJson } from "../models/dit.js";
import type { OriginalDiT } from "../models/dit-original.js";
import type { Engine } from "../runtime/engine.js";
import { ditScheduler, type SamplerState, type SchedulerConfig, schedulerFromConfig } from "../samplers/index.js";
import type { DownloadOptions } from "../weights/hub/index.js";
import type { Checkpoint, ModelComponent, ModelFolder } from "../weights/index.js";
import {
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  cacheSettings,
  forecasterOf,
  measures,
} from "./cache-options.js";
import type { Device } from "./device.js";
import type { ModelDtype, Quantize } from "./dtype.js";
import { FeatureCache } from "./feature-cache.js";
import { allClasses, type ClassNames, className, labelNames } from "./labels.js";
import { LatentDecoder } from "./latent-decoder.js";
import { guide, initialLatents, modelInput } from "./latents.js";
import { type GraphKind, ModelRunner } from "./model-runner.js";
import { type Planes, toRgb } from "./planes.js";
import { ditPresets } from "./presets.js";
import type { GenerationReport, StepRecord } from "./report.js";
import { checkRequest, type GenerateOptions, type Request } from "./request.js";

export interface GeneratedImage extends RgbImage {
  /** Class number and name. */
  readonly classId: number;
  readonly className: string;
  /** Draws this image alone; undefined if the request brought its own latents. */
  readonly seed: number | bigint | undefined;
}

export interface GenerationResult {
  /** Empty with the output type "latent". */
  readonly images: readonly GeneratedImage[];
  /** The finished latents, or the pixels in -1 .. 1 of a model that draws pixels, [images, C, H, W] row-major. */
  readonly latents: Float32Array;
  readonly report: GenerationReport;
}

/** How to get and to run a model. */
export interface PretrainedOptions extends Pick<DownloadOptions, "signal" | "onProgress"> {
  /**
   * Which weights to take where a folder or repository has several, by the infix of their files: "fp16" for
   * `diffusion_pytorch_model.fp16.safetensors`. Components without it give what they have. Default: weights without an
   * infix, or the only variant there is.
   */
  variant?: string | undefined;
  /** Of a model on the Hub: a branch, tag or commit, as after the "@" of "owner/name@revision". Default "main". */
  revision?: string | undefined;
  /** Where downloads are kept, in folders as Python's huggingface_hub makes them. Default: that of the environment. */
  cacheDir?: string | undefined;
  /** What computes: "cpu", or "auto", the default, which takes the best there is. */
  device?: Device | undefined;
  /** CPU threads. Default: one per physical core. */
  threads?: number | undefined;
  /**
   * In what the transformer's linear layers compute: "float32", the default, or "int8", faster and in a quarter of the
   * memory for images that differ a little. The 8-bit weights are made once, from any checkpoint, and kept in a cache
   * folder ($FEMO_CACHE, $XDG_CACHE_HOME/femo or ~/.cache/femo).
   */
  dtype?: ModelDtype | undefined;
  /**
   * The autoencoder for a model file that has none: a folder or a repository on the Hub, of an autoencoder alone or of a
   * pipeline that has one.
   */
  vae?: string | undefined;
  /** Attention heads of a model file of the original DiT release whose width is not one of the paper's. */
  heads?: number | undefined;
}

/** What a pipeline is made of; see `DiffusionPipeline.fromPretrained` for the usual way to one. */
export interface PipelineParts {
  readonly name: string;
  readonly runner: ModelRunner;
  readonly engine: Engine;
  /** From latents to images; without it the model draws pixels. */
  readonly decoder?: LatentDecoder | undefined;
  readonly scheduler: SchedulerConfig;
  readonly classes: ClassNames;
  readonly presets: CachePresets;
}

interface DiTParts extends Pick<PipelineParts, "name" | "scheduler" | "classes"> {
  readonly config: DiTConfig;
  readonly checkpoint: Checkpoint;
  readonly vae: ModelComponent | undefined;
  readonly quantize: Quantize | undefined;
}

let requests = 0;

/** Class-conditional images from a diffusion transformer. Requests may overlap; their steps take turns. */
export class DiffusionPipeline {
  readonly #parts: PipelineParts;

  constructor(parts: PipelineParts) {
    this.#parts = parts;
  }

  /**
   * Builds a pipeline from a folder in diffusers' layout.
   * @param quantize if the linear layers are to compute in 8 bits
   * @throws FemoError E_CONFIG, E_FILE or E_WEIGHT if the folder is not a DiT pipeline in full
   */
  static async fromFolder(folder: ModelFolder, engine: Engine, quantize?: Quantize): Promise<DiffusionPipeline> {
    if (folder.className !== "DiTPipeline") {
      throw new FemoError("E_CONFIG", `${folder.name}: expected a DiTPipeline, found ${folder.className}`);
    }
    const { config, checkpoint } = await folder.component("transformer");
    return DiffusionPipeline.#ofDiT(engine, {
      name: folder.model,
      config: ditConfigFromJson(config, `${folder.name}/transformer/config.json`),
      checkpoint,
      vae: folder.components.vae ? await folder.component("vae") : undefined,
      quantize,
      scheduler: schedulerFromConfig(await folder.config("scheduler")),
      classes: labelNames(folder.id2label),
    });
  }

  /**
   * Builds a pipeline from a model of the original DiT release, which is sampled as that release does unless asked
   * otherwise: DDIM with its own respacing. (Its guidance leaves the last channel alone: `guidanceChannels: 3`.)
   * @param name of the model, for reports
   * @param quantize if the linear layers are to compute in 8 bits
   * @throws FemoError E_CONFIG or E_WEIGHT if the autoencoder is not one, or not this model's
   */
  static fromOriginalDiT(
    name: string,
    model: OriginalDiT,
    vae: ModelComponent,
    engine: Engine,
    quantize?: Quantize,
  ): Promise<DiffusionPipeline> {
    const parts = { name, ...model, vae, scheduler: ditScheduler, classes: new Map(), quantize };
    return DiffusionPipeline.#ofDiT(engine, parts);
  }

  static async #ofDiT(engine: Engine, parts: DiTParts): Promise<DiffusionPipeline> {
    const { name, config, checkpoint, vae, scheduler, classes, quantize } = parts;
    const decoder =
      vae && new LatentDecoder(autoencoderKLConfigFromJson(vae.config, `${name}: vae`), vae.checkpoint, engine);
    const channels = decoder?.latentChannels ?? 3;
    if (config.inChannels !== channels) {
      const drawn = decoder ? `the vae decodes ${channels} channels` : "without a vae a model must draw 3 channels";
      throw new FemoError("E_CONFIG", `${name}: ${drawn}, found ${config.inChannels} in the transformer`);
    }
    const runner = new ModelRunner(dit(config), checkpoint, engine);
    return new DiffusionPipeline({
      name,
      runner: quantize ? await runner.quantized(quantize) : runner,
      engine,
      decoder,
      scheduler,
      classes: allClasses(config.numEmbedsAdaNorm, classes),
      presets: ditPresets(name),
    });
  }

  /**
   * Opens a pipeline (Node).
   * @param pathOrName the name of an embedded model, "avatars-dit"; a folder in diffusers' layout; a file of the original
   *   DiT release, "DiT-XL-2-256x256.pt", with the option `vae`; or a model on the Hugging Face Hub, "owner/name" or
   *   "owner/name@revision", which is downloaded unless the cache has it
   * @throws FemoError E_OPTION if an option does not exist, is of another type or does not go with this model; E_FILE,
   *   E_CONFIG or E_WEIGHT if there is no such model or it is not whole; E_NETWORK or E_ACCESS if it cannot be downloaded;
   *   the signal's reason if it was aborted
   */
  static async fromPretrained(pathOrName: string, options: PretrainedOptions = {}): Promise<DiffusionPipeline> {
    const { openPretrained } = await import("./pretrained-node.js");
    return openPretrained(pathOrName, options);
  }

  /** Model name, for reports. */
  get name(): string {
    return this.#parts.name;
  }

  /** Class numbers and their names; a class without a name is called by its number. */
  get classes(): ClassNames {
    return this.#parts.classes;
  }

  /** Measured defaults of each caching method for this model. */
  get presets(): CachePresets {
    return this.#parts.presets;
  }

  /** Height and width of the images. */
  get imageSize(): number {
    const { runner, decoder } = this.#parts;
    return (runner.model.sampleShape[1] as number) * (decoder?.stride ?? 1);
  }

  /**
   * Draws images.
   * @throws FemoError E_OPTION if an option is out of range; the signal's reason if it was aborted
   */
  async generate(options: GenerateOptions): Promise<GenerationResult> {
    const start = performance.now();
    const { engine, runner } = this.#parts;
    const request = checkRequest(options, { ...this.#parts, sampleShape: runner.model.sampleShape });
    const id = `request-${++requests}`;
    const cache = this.#featureCache(id, request.settings);
    const images: GeneratedImage[] = [];
    const size = runner.model.sampleShape.reduce((a, b) => a * b, 1);
    const finished = new Float32Array(request.labels.length * size);
    const batches: { images: number[]; steps: StepRecord[] }[] = [];
    let decodingMs = 0;
    try {
      const conditioning = await this.#condition(id, request);
      for (let first = 0; first < request.labels.length; first += request.batchSize) {
        const count = Math.min(request.batchSize, request.labels.length - first);
        const members = Array.from({ length: count }, (_, i) => first + i);
        const { latents, steps } = await this.#denoise(id, request, cache, members, conditioning.rowOf);
        batches.push({ images: members, steps });
        finished.set(latents, first * size);
        const decoding = performance.now();
        for (const [i, image] of request.outputType === "image" ? members.entries() : []) {
          images.push(this.#image(request, image, await this.#decode(request, latents, i)));
        }
        decodingMs += performance.now() - decoding;
      }
      const report = this.#report(request, cache, batches, conditioning, decodingMs);
      return { images, latents: finished, report: { ...report, totalMs: performance.now() - start } };
    } finally {
      // An engine that is closed holds nothing.
      await Promise.all([engine.free(runner.conditioningNames(id)), cache?.free()]).catch(() => {});
    }
  }

  /** Loads what a request with these options will run, so that its first step does not wait. */
  async warmUp(cache: CacheOptions = "none"): Promise<void> {
    const { runner, presets } = this.#parts;
    await runner.load({ kind: "conditioning" });
    const settings = cacheSettings(cache, presets);
    const graphs = this.#featureCache("warm-up", settings)?.graphs;
    for (const graph of graphs ? [graphs.full, graphs.forecast, ...graphs.kernels] : [plainStep]) {
      await runner.load(graph);
    }
    await this.#parts.decoder?.load();
  }

  /** Frees the model and ends the engine. */
  async close(): Promise<void> {
    await this.#parts.engine.close();
  }

  /** Runs the conditioning of every (step, class) pair once; step i of class c is row `rowOf(i, c)`. */
  async #condition(id: string, { labels, guided, sampler, signal }: Request) {
    const { runner, classes } = this.#parts;
    signal?.throwIfAborted();
    const distinct = [...new Set([...labels, ...(guided ? [noClass(classes)] : [])])];
    const pairs = sampler.timesteps.flatMap((timestep) => distinct.map((label) => ({ timestep, label })));
    const dims = [pairs.length];
    const { durationMs } = await runner.condition(id, {
      timestep: { dtype: "float32", dims, data: Float32Array.from(pairs, ({ timestep }) => timestep) },
      class_label: { dtype: "int64", dims, data: BigInt64Array.from(pairs, ({ label }) => BigInt(label)) },
    });
    const rowOf = (step: number, label: number): number => step * distinct.length + distinct.indexOf(label);
    return { durationMs, rowOf, flops: runner.flops({ kind: "conditioning" }, pairs.length) };
  }

  async #denoise(
    id: string,
    request: Request,
    cache: FeatureCache | undefined,
    members: readonly number[],
    rowOf: (step: number, label: number) => number,
  ): Promise<{ latents: Float32Array; steps: StepRecord[] }> {
    const { runner, classes } = this.#parts;
    const { schedule, settings, sampler, numInferenceSteps, signal } = request;
    const { sampleShape } = runner.model;
    const rows = request.guided ? [...members, ...members] : [...members];
    const labels = rows.map((image, i) => (i < members.length ? (request.labels[image] as number) : noClass(classes)));
    await cache?.start(rows);

    let state: SamplerState = { latent: initialLatents(request, members, sampleShape) };
    const steps: StepRecord[] = [];
    for (let i = 0; i < numInferenceSteps; i++) {
      signal?.throwIfAborted();
      const full = schedule.isFull(i);
      const graph = cache?.graphs[full ? "full" : "forecast"] ?? plainStep;
      const position = sampler.position(i);
      const sample = { dims: [rows.length, ...sampleShape], data: modelInput(state.latent, request.guided) };
      const pairs = BigInt64Array.from(labels, (label) => BigInt(rowOf(i, label)));
      const result = await runner.run(graph, {
        feeds: { ...runner.stepFeeds(id, graph, sample, pairs), ...(full ? {} : cache?.combine(position)) },
        fetch: [names.output],
        hold: (full && cache?.capture()) || {},
      });
      const learned = full ? await cache?.learn({ position, differences: i > firstDifference(settings) }) : undefined;
      const beta = full && cache?.beta();
      const output = result.outputs[names.output]?.data as Float32Array;
      state = sampler.step(i, state, guide(request, output, members.length, sampleShape));

      const record: StepRecord = {
        step: i,
        timestep: sampler.timesteps[i] as number,
        kind: full ? "full" : "forecast",
        durationMs: result.durationMs + (learned?.durationMs ?? 0),
        flops: runner.flops(graph, rows.length) + (full ? (cache?.kernelFlops(rows.length) ?? 0) : 0),
        ...(learned?.forecast && { forecastError: learned.forecast }),
        ...(beta && { beta }),
      };
      steps.push(record);
      request.onStep?.({ ...record, numInferenceSteps, images: members, latents: state.latent });
    }
    return { latents: state.latent, steps };
  }

  #featureCache(id: string, settings: CacheSettings): FeatureCache | undefined {
    if (settings.method === "none") return undefined;
    const { engine, runner } = this.#parts;
    return new FeatureCache(engine, runner, id, {
      forecaster: forecasterOf(settings),
      granularity: settings.granularity,
      measure: measures(settings),
    });
  }

  /** One image of a batch, [images, C, H, W]. */
  async #decode({ decodeTileSize, signal }: Request, latents: Float32Array, index: number): Promise<RgbImage> {
    const { runner, decoder } = this.#parts;
    const dims = runner.model.sampleShape as Planes["dims"];
    const size = dims[0] * dims[1] * dims[2];
    const latent = { dims, data: latents.subarray(index * size, (index + 1) * size) };
    return toRgb(decoder ? await decoder.decode(latent, { tileSize: decodeTileSize, signal }) : latent);
  }

  #image({ labels, seeds }: Request, image: number, pixels: RgbImage): GeneratedImage {
    const classId = labels[image] as number;
    return { ...pixels, classId, className: className(classId, this.#parts.classes), seed: seeds[image] };
  }

  #report(
    request: Request,
    cache: FeatureCache | undefined,
    batches: GenerationReport["batches"],
    conditioning: { durationMs: number; flops: number },
    decodingMs: number,
  ): Omit<GenerationReport, "totalMs"> {
    const { runner } = this.#parts;
    const rowsOf = (images: number): number => (request.guided ? 2 * images : images);
    const sum = (of: (step: StepRecord) => number): number =>
      batches.reduce((total, { steps }) => total + steps.reduce((part, step) => part + of(step), 0), 0);
    const done = conditioning.flops + sum((step) => step.flops);
    const uncached = batches.reduce(
      (total, { images }) => total + request.numInferenceSteps * runner.flops({ kind: "step" }, rowsOf(images.length)),
      conditioning.flops,
    );
    const largest = Math.max(...batches.map(({ images }) => rowsOf(images.length)));
    return {
      model: this.name,
      dtype: runner.dtype,
      numInferenceSteps: request.numInferenceSteps,
      guidanceScale: request.guidanceScale,
      guidanceChannels: request.guidanceChannels,
      sampler: request.sampler.name,
      timestepSpacing: request.sampler.spacing,
      warnings: request.sampler.notes,
      cache: request.settings,
      batches,
      fullSteps: (batches[0]?.steps ?? []).filter(({ kind }) => kind === "full").map(({ step }) => step),
      flops: { done, uncached, speedup: uncached / done },
      stateBytes: cache?.bytes(largest) ?? 0,
      conditioningMs: conditioning.durationMs,
      stepsMs: sum((step) => step.durationMs),
      decodingMs,
    };
  }
}

/** The label of a row without a class: the one after the last. */
const noClass = (classes: ClassNames): number => classes.size;

/** The graph of every step without a cache. */
const plainStep: GraphKind = { kind: "step" };

/** Differences may be formed after this step: TaylorSeer's gate (methods.md section 1). */
const firstDifference = (settings: CacheSettings): number =>
  settings.method === "none" ? 0 : Math.max(0, settings.firstEnhance - 2);
