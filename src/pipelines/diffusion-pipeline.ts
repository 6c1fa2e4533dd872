import { FemoError } from "../errors.js";
import { names } from "../graph/trace.js";
import type { RgbImage } from "../images/index.js";
import { dit, ditConfigFromJson } from "../models/dit.js";
import type { Engine } from "../runtime/engine.js";
import { type DdimSchedulerConfig, schedulerFromConfig } from "../samplers/index.js";
import type { ModelFolder } from "../weights/index.js";
import { type CacheOptions, type CachePresets, type CacheSettings, cacheSettings, measures } from "./cache-options.js";
import { FeatureCache } from "./feature-cache.js";
import type { ClassNames } from "./labels.js";
import { guide, initialLatents, modelInput, toBytes } from "./latents.js";
import { type GraphKind, ModelRunner } from "./model-runner.js";
import { ditPresets } from "./presets.js";
import type { GenerationReport, StepRecord } from "./report.js";
import { checkRequest, type GenerateOptions, type Request } from "./request.js";

export interface GeneratedImage extends RgbImage {
  /** Class number and name. */
  readonly classId: number;
  readonly className: string;
  /** Draws this image alone; undefined if the request brought its own latents. */
  readonly seed: number | undefined;
}

export interface GenerationResult {
  readonly images: readonly GeneratedImage[];
  readonly report: GenerationReport;
}

/** How to run a model. */
export interface PretrainedOptions {
  /** CPU threads. Default: one per physical core. */
  threads?: number;
}

/** What a pipeline is made of; see `DiffusionPipeline.fromPretrained` for the usual way to one. */
export interface PipelineParts {
  readonly name: string;
  readonly runner: ModelRunner;
  readonly engine: Engine;
  readonly scheduler: DdimSchedulerConfig;
  readonly classes: ClassNames;
  readonly numClasses: number;
  readonly presets: CachePresets;
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
   * @throws FemoError E_CONFIG, E_FILE or E_WEIGHT if the folder is not a DiT pipeline in full
   */
  static async fromFolder(folder: ModelFolder, engine: Engine): Promise<DiffusionPipeline> {
    if (folder.className !== "DiTPipeline") {
      throw new FemoError("E_CONFIG", `${folder.name}: expected a DiTPipeline, found ${folder.className}`);
    }
    if (folder.components.vae) {
      throw new FemoError(
        "E_CONFIG",
        `${folder.name}: pipelines with a vae are not supported yet, only pixel-space ones`,
      );
    }
    const transformer = await folder.component("transformer");
    const config = ditConfigFromJson(transformer.config, `${folder.name}/transformer/config.json`);
    if (config.inChannels !== 3) {
      throw new FemoError(
        "E_CONFIG",
        `${folder.name}: without a vae the model must draw 3 channels, found ${config.inChannels}`,
      );
    }
    const labels = Object.entries(folder.id2label ?? {});
    const name = folder.name.split(/[\\/]/).filter(Boolean).at(-1) ?? folder.name;
    return new DiffusionPipeline({
      name,
      runner: new ModelRunner(dit(config), transformer.checkpoint, engine),
      engine,
      scheduler: schedulerFromConfig(await folder.config("scheduler")),
      classes: new Map(labels.map(([id, names]) => [Number(id), names.split(",").map((name) => name.trim())])),
      numClasses: config.numEmbedsAdaNorm,
      presets: ditPresets(name),
    });
  }

  /**
   * Opens a pipeline (Node).
   * @param pathOrName a folder in diffusers' layout, or the name of an embedded model: "avatars-dit"
   * @throws FemoError E_FILE, E_CONFIG or E_WEIGHT if there is no such model or it is not whole
   */
  static async fromPretrained(pathOrName: string, options: PretrainedOptions = {}): Promise<DiffusionPipeline> {
    const { openPretrained } = await import("./pretrained-node.js");
    return openPretrained(pathOrName, options);
  }

  /** Model name, for reports. */
  get name(): string {
    return this.#parts.name;
  }

  /** Class numbers and their names. */
  get classes(): ClassNames {
    return this.#parts.classes;
  }

  /** Measured defaults of each caching method for this model. */
  get presets(): CachePresets {
    return this.#parts.presets;
  }

  /** Height and width of the images. */
  get imageSize(): number {
    return this.#parts.runner.model.sampleShape[1] as number;
  }

  /**
   * Draws images.
   * @throws FemoError E_OPTION if an option is out of range; the signal's reason if it was aborted
   */
  async generate(options: GenerateOptions): Promise<GenerationResult> {
    const start = performance.now();
    const { engine, runner } = this.#parts;
    const { sampleShape } = runner.model;
    const request = checkRequest(options, { ...this.#parts, sampleShape });
    const id = `request-${++requests}`;
    const cache = this.#featureCache(id, request);
    const images: GeneratedImage[] = [];
    const batches: { images: number[]; steps: StepRecord[] }[] = [];
    try {
      const conditioning = await this.#condition(id, request);
      for (let first = 0; first < request.labels.length; first += request.batchSize) {
        const count = Math.min(request.batchSize, request.labels.length - first);
        const members = Array.from({ length: count }, (_, i) => first + i);
        const { latents, steps } = await this.#denoise(id, request, cache, members, conditioning.rowOf);
        batches.push({ images: members, steps });
        images.push(...members.map((image, i) => this.#image(request, image, toBytes(latents, i, sampleShape))));
      }
      const report = this.#report(request, cache, batches, conditioning);
      return { images, report: { ...report, totalMs: performance.now() - start } };
    } finally {
      // An engine that is closed holds nothing.
      await Promise.all([engine.free(runner.conditioningNames(id)), cache?.free()]).catch(() => {});
    }
  }

  /** Loads what a request with these options will run, so that its first step does not wait. */
  async warmUp(cache: CacheOptions = "none"): Promise<void> {
    const settings = cacheSettings(cache, this.#parts.presets);
    await this.#parts.runner.load({ kind: "conditioning" });
    for (const graph of Object.values(graphsOf(settings))) await this.#parts.runner.load(graph);
  }

  /** Frees the model and ends the engine. */
  async close(): Promise<void> {
    await this.#parts.engine.close();
  }

  /** Runs the conditioning of every (step, class) pair once; step i of class c is row `rowOf(i, c)`. */
  async #condition(id: string, { labels, guided, sampler, signal }: Request) {
    const { runner, numClasses } = this.#parts;
    signal?.throwIfAborted();
    const distinct = [...new Set([...labels, ...(guided ? [numClasses] : [])])];
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
    const { runner, numClasses } = this.#parts;
    const { schedule, settings, sampler, numInferenceSteps, signal } = request;
    const { sampleShape } = runner.model;
    const rows = request.guided ? [...members, ...members] : [...members];
    const labels = rows.map((image, i) => (i < members.length ? (request.labels[image] as number) : numClasses));
    const graphs = graphsOf(settings);
    await cache?.start(rows);

    let latents = initialLatents(request, members, sampleShape);
    const steps: StepRecord[] = [];
    for (let i = 0; i < numInferenceSteps; i++) {
      signal?.throwIfAborted();
      const full = schedule.isFull(i);
      const graph = full ? graphs.full : graphs.forecast;
      const position = numInferenceSteps - 1 - i; // DiT's respaced index, which counts down
      const cached = full ? cache?.update(position, i > firstDifference(settings)) : cache?.combine(position);
      const sample = { dims: [rows.length, ...sampleShape], data: modelInput(latents, request.guided) };
      const pairs = BigInt64Array.from(labels, (label) => BigInt(rowOf(i, label)));
      const result = await runner.run(graph, {
        feeds: { ...runner.stepFeeds(id, graph, sample, pairs), ...cached?.feeds },
        fetch: [names.output, ...(cached?.fetch ?? [])],
        hold: cached?.hold ?? {},
      });
      const measured = full && cache?.measured(result);
      const beta = full && cache?.beta();
      const output = result.outputs[names.output]?.data as Float32Array;
      latents = sampler.step(i, latents, guide(request, output, members.length, sampleShape));

      const record: StepRecord = {
        step: i,
        timestep: sampler.timesteps[i] as number,
        kind: full ? "full" : "forecast",
        durationMs: result.durationMs,
        flops: runner.flops(graph, rows.length, cache?.rows),
        ...(measured && { forecast: measured }),
        ...(beta && { beta }),
      };
      steps.push(record);
      request.onStep?.({ ...record, numInferenceSteps, images: members, latents });
    }
    return { latents, steps };
  }

  #featureCache(id: string, { settings, forecaster }: Request): FeatureCache | undefined {
    if (settings.method === "none" || !forecaster) return undefined;
    const { engine, runner } = this.#parts;
    return new FeatureCache(engine, id, forecaster, runner.features(settings.granularity), measures(settings));
  }

  #image({ labels, seeds }: Request, image: number, data: Uint8Array): GeneratedImage {
    const [, height, width] = this.#parts.runner.model.sampleShape as [number, number, number];
    const classId = labels[image] as number;
    const className = this.#parts.classes.get(classId)?.[0] ?? String(classId);
    return { width, height, data, classId, className, seed: seeds[image] };
  }

  #report(
    request: Request,
    cache: FeatureCache | undefined,
    batches: GenerationReport["batches"],
    conditioning: { durationMs: number; flops: number },
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
      numInferenceSteps: request.numInferenceSteps,
      guidanceScale: request.guidanceScale,
      guidanceChannels: request.guidanceChannels,
      sampler: "DDIM",
      timestepSpacing: request.timestepSpacing,
      cache: request.settings,
      batches,
      fullSteps: (batches[0]?.steps ?? []).filter(({ kind }) => kind === "full").map(({ step }) => step),
      flops: { done, uncached, speedup: uncached / done },
      stateBytes: cache?.bytes(largest) ?? 0,
      conditioningMs: conditioning.durationMs,
      stepsMs: sum((step) => step.durationMs),
    };
  }
}

/** The graphs of a full and of a forecast step; without a cache every step is the plain one. */
function graphsOf(settings: CacheSettings): { full: GraphKind; forecast: GraphKind } {
  if (settings.method === "none") return { full: { kind: "step" }, forecast: { kind: "step" } };
  const { granularity } = settings;
  return {
    full: { kind: "full", granularity, measure: measures(settings) },
    forecast: { kind: "forecast", granularity },
  };
}

/** Differences may be formed after this step: TaylorSeer's gate (methods.md section 1). */
const firstDifference = (settings: CacheSettings): number =>
  settings.method === "none" ? 0 : Math.max(0, settings.firstEnhance - 2);
