import { FemoError } from "../errors.js";
import type { Forecaster } from "../forecasts/index.js";
import type { RgbImage } from "../images/index.js";
import { dit, ditConfigFromJson } from "../models/dit.js";
import type { Engine, HostTensor } from "../runtime/engine.js";
import {
  type DdimSchedulerConfig,
  ddim,
  type Sampler,
  schedulerFromConfig,
  type TimestepSpacing,
  TorchGenerator,
} from "../samplers/index.js";
import type { Schedule } from "../schedules/index.js";
import type { ModelFolder } from "../weights/index.js";
import {
  buildCache,
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  cacheSettings,
} from "./cache-options.js";
import { Coefficients } from "./coefficients.js";
import { type ClassNames, classId } from "./labels.js";
import { type GraphKind, ModelRunner } from "./model-runner.js";
import { ditPresets } from "./presets.js";
import type { GenerationReport, StepRecord } from "./report.js";

/** Told after every step. */
export interface StepProgress extends StepRecord {
  readonly numInferenceSteps: number;
  /** Which images, by their index in the result, this step was for. */
  readonly images: readonly number[];
  /** The noisy images after the step, [images, C, H, W] row-major. */
  readonly latents: Float32Array;
}

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
  timestepSpacing?: TimestepSpacing;
  /** How to skip work; a method's name, or its name and fields. Default "none". */
  cache?: CacheOptions;
  /** Images computed together. Default 4. */
  batchSize?: number;
  /** Stops between steps; the promise rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Called after every step; what it throws ends the request. */
  onStep?: (progress: StepProgress) => void;
}

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

/** A request with every default filled in and every value checked. */
interface Request {
  readonly labels: readonly number[];
  readonly seeds: readonly (number | undefined)[];
  readonly latents: Float32Array | undefined;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
  readonly guidanceChannels: "all" | number;
  readonly batchSize: number;
  readonly sampler: Sampler;
  readonly timestepSpacing: TimestepSpacing;
  readonly settings: CacheSettings;
  readonly schedule: Schedule;
  readonly forecaster: Forecaster | undefined;
  readonly signal: AbortSignal | undefined;
  readonly onStep: ((progress: StepProgress) => void) | undefined;
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
    return new DiffusionPipeline({
      name: folder.name.split(/[\\/]/).filter(Boolean).at(-1) ?? folder.name,
      runner: new ModelRunner(dit(config), transformer.checkpoint, engine),
      engine,
      scheduler: schedulerFromConfig(await folder.config("scheduler")),
      classes: new Map(labels.map(([id, names]) => [Number(id), names.split(",").map((name) => name.trim())])),
      numClasses: config.numEmbedsAdaNorm,
      presets: ditPresets,
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
    const request = this.#check(options);
    const id = `request-${++requests}`;
    const images: GeneratedImage[] = [];
    const batches: { images: number[]; steps: StepRecord[] }[] = [];
    const { engine } = this.#parts;
    const held: string[] = [];
    try {
      const conditioning = await this.#condition(id, request);
      held.push(...conditioning.held);
      for (let first = 0; first < request.labels.length; first += request.batchSize) {
        const count = Math.min(request.batchSize, request.labels.length - first);
        const members = Array.from({ length: count }, (_, i) => first + i);
        const { latents, steps } = await this.#denoise(id, request, members, conditioning.rowOf);
        batches.push({ images: members, steps });
        images.push(...members.map((image, i) => this.#image(request, image, latents, i)));
      }
      const report = this.#report(request, batches, conditioning);
      return { images, report: { ...report, totalMs: performance.now() - start } };
    } finally {
      const states = this.#stateNames(id, request).map(([name]) => name);
      await engine.free([...held, ...states]).catch(() => {}); // an engine that is closed holds nothing
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

  #check(options: GenerateOptions): Request {
    const { scheduler, presets, classes, numClasses, runner } = this.#parts;
    const { numImages = 1, numInferenceSteps = 50, guidanceScale = 1.5, guidanceChannels = "all", seed = 0 } = options;
    const { latents, batchSize = 4, signal, onStep } = options;
    checkInteger("numImages", numImages, 1, 100_000);
    checkInteger("batchSize", batchSize, 1, 1024);
    checkInteger("seed", seed, 0, Number.MAX_SAFE_INTEGER - 1e9);
    if (!Number.isFinite(guidanceScale)) {
      throw new FemoError("E_OPTION", `guidanceScale: expected a finite number, found ${guidanceScale}`);
    }
    const [channels, ...area] = runner.model.sampleShape as [number, ...number[]];
    if (guidanceChannels !== "all") checkInteger("guidanceChannels", guidanceChannels, 1, channels);
    const given = [options.classLabels].flat() as (string | number)[];
    if (given.length === 0) throw new FemoError("E_OPTION", "classLabels: expected at least one class, found none");
    const labels = given
      .map((label) => classId(label, classes, numClasses))
      .flatMap((label) => new Array<number>(numImages).fill(label));
    const expected = labels.length * channels * area.reduce((a, b) => a * b, 1);
    if (latents && latents.length !== expected) {
      throw new FemoError(
        "E_OPTION",
        `latents: expected ${expected} values, [${[labels.length, channels, ...area].join(", ")}], found ${latents.length}`,
      );
    }
    const timestepSpacing = options.timestepSpacing ?? scheduler.timestepSpacing;
    const settings = cacheSettings(options.cache ?? "none", presets);
    return {
      labels,
      seeds: labels.map((_, i) => (latents ? undefined : seed + i)),
      latents,
      numInferenceSteps,
      guidanceScale,
      guidanceChannels,
      batchSize,
      sampler: ddim({ ...scheduler, timestepSpacing, numInferenceSteps }),
      timestepSpacing,
      settings,
      ...buildCache(settings),
      signal,
      onStep,
    };
  }

  /** Runs the conditioning of every (step, class) pair once; step i of class c is row `rowOf(i, c)`. */
  async #condition(id: string, { labels, guidanceScale, sampler, signal }: Request) {
    const { runner, numClasses } = this.#parts;
    signal?.throwIfAborted();
    const distinct = [...new Set([...labels, ...(guidanceScale > 1 ? [numClasses] : [])])];
    const pairs = sampler.timesteps.flatMap((timestep) => distinct.map((label) => ({ timestep, label })));
    const dims = [pairs.length];
    const { durationMs, held } = await runner.condition(id, {
      timestep: { dtype: "float32", dims, data: Float32Array.from(pairs, ({ timestep }) => timestep) },
      class_label: { dtype: "int64", dims, data: BigInt64Array.from(pairs, ({ label }) => BigInt(label)) },
    });
    const rowOf = (step: number, label: number): number => step * distinct.length + distinct.indexOf(label);
    return { durationMs, held, rowOf, flops: runner.flops({ kind: "conditioning" }, pairs.length) };
  }

  async #denoise(
    id: string,
    request: Request,
    members: readonly number[],
    rowOf: (step: number, label: number) => number,
  ): Promise<{ latents: Float32Array; steps: StepRecord[] }> {
    const { engine, runner, numClasses } = this.#parts;
    const { forecaster, schedule, settings, sampler, numInferenceSteps, signal } = request;
    const guided = request.guidanceScale > 1;
    const rows = guided ? [...members, ...members] : [...members];
    const labels = rows.map((image, i) => (i < members.length ? (request.labels[image] as number) : numClasses));
    const graphs = graphsOf(settings);
    const coefficients =
      forecaster && graphs.forecast ? new Coefficients(forecaster, this.#features(settings).length, rows) : undefined;
    await engine.holdZeros(
      Object.fromEntries(
        this.#stateNames(id, request).map(([name, elements]) => [
          name,
          [rows.length, forecaster?.stateSize ?? 0, elements],
        ]),
      ),
    );

    let latents = this.#initialLatents(request, members);
    const steps: StepRecord[] = [];
    for (let i = 0; i < numInferenceSteps; i++) {
      signal?.throwIfAborted();
      const full = schedule.isFull(i);
      const graph = full || !graphs.forecast ? graphs.full : graphs.forecast;
      const position = numInferenceSteps - 1 - i; // DiT's respaced index, which counts down
      const sample = this.#sample(latents, rows.length, members.length);
      const pair = BigInt64Array.from(labels, (label) => BigInt(rowOf(i, label)));
      const feeds = runner.stepFeeds(id, graph, sample, { dtype: "int64", dims: [rows.length], data: pair });
      const fetch = ["output"];
      let hold: Record<string, string> = {};
      if (coefficients && full) {
        feeds.update = coefficients.update({ position, differences: i > firstDifference(settings) });
        hold = Object.fromEntries(
          this.#features(settings).map(({ name }) => [`next-state:${name}`, `${id}:state:${name}`]),
        );
        if (measures(settings)) fetch.push("gram");
      } else if (coefficients) {
        feeds.combine = coefficients.combine(position);
      }
      const session = await runner.load(graph);
      const { outputs, durationMs } = await session.run({ feeds, fetch, hold });
      const measured = outputs.gram && coefficients?.measure(outputs.gram);
      const prediction = this.#guide(request, (outputs.output as HostTensor).data as Float32Array, members.length);
      latents = sampler.step(i, latents, prediction);

      const beta = full ? coefficients?.beta() : undefined;
      const record: StepRecord = {
        step: i,
        timestep: sampler.timesteps[i] as number,
        kind: full ? "full" : "forecast",
        durationMs,
        flops: runner.flops(graph, rows.length, forecaster?.stateSize),
        ...(measured && { forecast: measured }),
        ...(beta && { beta }),
      };
      steps.push(record);
      request.onStep?.({ ...record, numInferenceSteps, images: members, latents });
    }
    return { latents, steps };
  }

  #features(settings: CacheSettings) {
    return settings.method === "none" ? [] : this.#parts.runner.features(settings.granularity);
  }

  #stateNames(id: string, { settings }: Request): [name: string, elements: number][] {
    return this.#features(settings).map(({ name, elements }) => [`${id}:state:${name}`, elements]);
  }

  #initialLatents({ latents, seeds, sampler }: Request, members: readonly number[]): Float32Array {
    const shape = this.#parts.runner.model.sampleShape;
    const size = shape.reduce((a, b) => a * b, 1);
    const out = new Float32Array(members.length * size);
    members.forEach((image, i) => {
      const noise = latents
        ? latents.subarray(image * size, (image + 1) * size)
        : new TorchGenerator(seeds[image] as number).randn([1, ...shape]);
      out.set(noise, i * size);
    });
    return latents ? out : out.map((x) => x * sampler.initNoiseSigma);
  }

  /** The latents, twice for guidance. */
  #sample(latents: Float32Array, rows: number, members: number): HostTensor {
    const data = rows === members ? latents : new Float32Array(2 * latents.length);
    if (rows !== members) {
      data.set(latents);
      data.set(latents, latents.length);
    }
    return { dtype: "float32", dims: [rows, ...this.#parts.runner.model.sampleShape], data };
  }

  /**
   * Classifier-free guidance, e = e0 + scale (e1 - e0), on the guided channels; the others keep the conditional value.
   * A learned variance, the second half of the output channels, is dropped.
   */
  #guide({ guidanceScale, guidanceChannels }: Request, output: Float32Array, members: number): Float32Array {
    const { sampleShape, outputShape } = this.#parts.runner.model;
    const area = sampleShape.slice(1).reduce((a, b) => a * b, 1);
    const [channels, outChannels] = [sampleShape[0] as number, outputShape[0] as number];
    const guided = (guidanceChannels === "all" ? channels : guidanceChannels) * area;
    const result = new Float32Array(members * channels * area);
    for (let i = 0; i < members; i++) {
      const conditional = i * outChannels * area;
      const unconditional = (members + i) * outChannels * area;
      for (let j = 0; j < channels * area; j++) {
        const e1 = output[conditional + j] as number;
        const e0 = guidanceScale > 1 && j < guided ? (output[unconditional + j] as number) : e1;
        result[i * channels * area + j] = e0 + guidanceScale * (e1 - e0);
      }
    }
    return result;
  }

  /** [-1, 1] to 8 bits. */
  #image(request: Request, image: number, latents: Float32Array, at: number): GeneratedImage {
    const [channels, height, width] = this.#parts.runner.model.sampleShape as [number, number, number];
    const area = height * width;
    const data = new Uint8Array(area * channels);
    for (let channel = 0; channel < channels; channel++) {
      for (let pixel = 0; pixel < area; pixel++) {
        const x = latents[(at * channels + channel) * area + pixel] as number;
        data[pixel * channels + channel] = Math.round(Math.min(Math.max(127.5 * (x + 1), 0), 255));
      }
    }
    const classId = request.labels[image] as number;
    const className = this.#parts.classes.get(classId)?.[0] ?? String(classId);
    return { width, height, data, classId, className, seed: request.seeds[image] };
  }

  #report(
    request: Request,
    batches: GenerationReport["batches"],
    conditioning: { durationMs: number; flops: number },
  ): Omit<GenerationReport, "totalMs"> {
    const { runner } = this.#parts;
    const rowsOf = (images: number): number => (request.guidanceScale > 1 ? 2 * images : images);
    const sum = (of: (step: StepRecord) => number): number =>
      batches.reduce((total, { steps }) => total + steps.reduce((part, step) => part + of(step), 0), 0);
    const done = conditioning.flops + sum((step) => step.flops);
    const uncached = batches.reduce(
      (total, { images }) => total + request.numInferenceSteps * runner.flops({ kind: "step" }, rowsOf(images.length)),
      conditioning.flops,
    );
    const elements = this.#features(request.settings).reduce((total, feature) => total + feature.elements, 0);
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
      stateBytes: Float32Array.BYTES_PER_ELEMENT * largest * (request.forecaster?.stateSize ?? 0) * elements,
      conditioningMs: conditioning.durationMs,
      stepsMs: sum((step) => step.durationMs),
    };
  }
}

/** The graphs of a full and of a forecast step; an uncached run has no forecast ones. */
function graphsOf(settings: CacheSettings): { full: GraphKind; forecast?: GraphKind } {
  if (settings.method === "none") return { full: { kind: "step" } };
  const { granularity } = settings;
  return {
    full: { kind: "full", granularity, measure: measures(settings) },
    forecast: { kind: "forecast", granularity },
  };
}

/** Adapting needs the measurement; the others only report it. */
const measures = (settings: CacheSettings): boolean =>
  settings.method !== "none" && (settings.measure || settings.method === "adaptedFemo");

/** Differences may be formed after this step: TaylorSeer's gate (methods.md section 1). */
const firstDifference = (settings: CacheSettings): number =>
  settings.method === "none" ? 0 : Math.max(0, settings.firstEnhance - 2);

function checkInteger(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new FemoError("E_OPTION", `${name}: expected an integer from ${min} to ${max}, found ${value}`);
  }
}
