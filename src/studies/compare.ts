import { FemoError } from "../errors.js";
import type { RgbImage } from "../images/index.js";
import { type CacheSettings, cacheSettings } from "../methods/index.js";
import { psnr, ssim } from "../metrics/index.js";
import type {
  DiffusionPipeline,
  GeneratedImage,
  GenerateOptions,
  GenerationReport,
  ModelDtype,
  StepRecord,
} from "../pipelines/index.js";
import { checkInteger, checkTypes, isFunction, isString, type OptionTypes } from "../pipelines/option-types.js";
import { generateTypes, MAX_RESULT_BYTES } from "../pipelines/request.js";
import { type SamplerName, seedAfter } from "../samplers/index.js";
import { defaultClasses } from "./default-classes.js";
import { type CompareVariant, defaultVariants, expectedCost, FORECAST_COST } from "./variants.js";

/** Told after every step. */
export interface CompareProgress {
  /** Name of the variant at work. */
  readonly variant: string;
  readonly step: number;
  readonly numInferenceSteps: number;
  /** Share of all the work that is done, 0 .. 1, by its expected cost. */
  readonly done: number;
}

/** Told when a variant has drawn the batch of a round. */
export interface CompareResult {
  readonly variant: string;
  /** 1 .. rounds. */
  readonly round: number;
  readonly rounds: number;
  /** Images drawn in this round. */
  readonly images: number;
  /** Time in the runtime for conditioning and steps, milliseconds. */
  readonly durationMs: number;
  /** Time of the reference over this time, and mean PSNR in dB, if the reference has drawn this round's batch before. */
  readonly measuredSpeedup?: number;
  readonly psnr?: number;
}

/** What to compare. Options not described here are those of `generate`. */
export interface CompareOptions
  extends Pick<
    GenerateOptions,
    | "numImagesPerPrompt"
    | "numInferenceSteps"
    | "guidanceScale"
    | "guidanceChannels"
    | "seed"
    | "sampler"
    | "timestepSpacing"
    | "batchSize"
    | "decodeTileSize"
    | "signal"
  > {
  /** Classes by name or number. Default: the first ten of the model. */
  classLabels?: readonly (string | number)[];
  /** Ways to draw, besides the uncached reference, which always runs. Default: `defaultVariants`. */
  variants?: readonly CompareVariant[];
  /** Called after every step; what it throws ends the comparison. */
  onProgress?: (progress: CompareProgress) => void;
  /** Called when a variant is through with a round; what it throws ends the comparison. */
  onResult?: (result: CompareResult) => void;
}

/** Likeness of images to those of the uncached run with the same seeds. */
export interface Quality {
  readonly mean: number;
  /** Standard error of the mean; undefined with fewer than two images, or if a value is infinite. */
  readonly standardError: number | undefined;
  /** One for each image. */
  readonly values: readonly number[];
}

/** A step of a variant, over all its batches. */
export interface ComparisonStep extends Pick<StepRecord, "step" | "timestep"> {
  /** Share of the images that ran the whole network, 0 .. 1. */
  readonly computed: number;
  /** Time in the runtime for all images, milliseconds. */
  readonly durationMs: number;
  /** At measured full steps: relative error of the forecast, root mean square over features and samples. */
  readonly forecastError?: number;
  /** Momentum coefficient, mean over features and samples. */
  readonly beta?: number;
}

/** A variant and what it cost. */
export interface ComparisonRow {
  readonly name: string;
  readonly cache: CacheSettings;
  readonly sampler: SamplerName;
  readonly timestepSpacing: string;
  readonly numInferenceSteps: number;
  /** What in these settings is known to cost quality. */
  readonly warnings: readonly string[];
  /** Steps that ran the whole network, of each image. */
  readonly fullSteps: readonly (readonly number[])[];
  /** Floating-point operations, two for each multiply-add. */
  readonly flops: number;
  /** Of the reference, over those of this variant. */
  readonly flopsSpeedup: number;
  /** Time in the runtime for conditioning and steps, milliseconds. */
  readonly durationMs: number;
  /** Time of the reference over time of this variant. */
  readonly measuredSpeedup: number;
  /** The same for each round. */
  readonly measuredSpeedups: readonly number[];
  /** Decibels; undefined for the reference, Infinity for identical images. */
  readonly psnr?: Quality;
  /** At most 1; undefined for the reference and for images too small to compare. */
  readonly ssim?: Quality;
  /** Bytes of the features kept for one batch. */
  readonly stateBytes: number;
  readonly steps: readonly ComparisonStep[];
}

/** A comparison: plain data but for `images`. */
export interface Comparison {
  readonly model: string;
  readonly dtype: ModelDtype;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
  readonly guidanceChannels: "all" | number;
  readonly sampler: SamplerName;
  readonly timestepSpacing: string;
  readonly batchSize: number;
  /** The class and seed of each image. */
  readonly subjects: readonly {
    readonly classId: number;
    readonly className: string;
    readonly seed: number | bigint;
  }[];
  /** The uncached reference first. */
  readonly rows: readonly ComparisonRow[];
  /** Images of each row, in the order of the subjects. */
  readonly images: readonly (readonly RgbImage[])[];
}

/** One variant's part of one round. */
interface Part {
  readonly images: readonly GeneratedImage[];
  readonly report: GenerationReport;
}

/** Smallest side that SSIM's window fits into. */
const SSIM_MIN_SIDE = 11;

/**
 * Draws the same images in several ways, from the same noise, and measures each way against an uncached run.
 *
 * Work goes in rounds of one batch: in a round every variant draws that batch, in turns whose order is reversed from
 * round to round, so that whatever else the machine does falls on all of them alike. Before a variant is timed its graphs
 * are loaded, and before it is timed first they are run.
 * @throws FemoError E_OPTION if an option is out of range; the signal's reason if it was aborted
 */
export async function compare(pipeline: DiffusionPipeline, options: CompareOptions = {}): Promise<Comparison> {
  checkTypes(options, optionTypes);
  const { numImagesPerPrompt = 1, numInferenceSteps = 50, seed = 0, batchSize = 4, signal } = options;
  const { guidanceScale, guidanceChannels, sampler, timestepSpacing, decodeTileSize, onProgress, onResult } = options;
  const classLabels = options.classLabels ?? defaultClasses(pipeline);
  checkInteger("numInferenceSteps", numInferenceSteps, 1, 100_000);
  checkInteger("numImagesPerPrompt", numImagesPerPrompt, 1, 100_000);
  checkInteger("batchSize", batchSize, 1, 1024);
  const variants: CompareVariant[] = [
    { name: "No cache" },
    ...(options.variants ?? defaultVariants(pipeline, { numInferenceSteps })),
  ];
  const repeated = variants.find(({ name }, i) => variants.findIndex((other) => other.name === name) !== i);
  if (repeated) throw new FemoError("E_OPTION", `variants: the name "${repeated.name}" is there twice`);
  const most = Math.floor(MAX_RESULT_BYTES / (variants.length * 3 * pipeline.imageSize ** 2)); // all images are kept
  checkInteger("classLabels, numImagesPerPrompt: images in all", classLabels.length * numImagesPerPrompt, 1, most);
  const labels = classLabels.flatMap((label) => new Array<string | number>(numImagesPerPrompt).fill(label));
  const common = {
    ...(guidanceScale !== undefined && { guidanceScale }),
    ...(guidanceChannels !== undefined && { guidanceChannels }),
    ...(sampler !== undefined && { sampler }),
    ...(timestepSpacing !== undefined && { timestepSpacing }),
    ...(decodeTileSize !== undefined && { decodeTileSize }),
    ...(signal && { signal }),
    batchSize,
  };

  const stepsOf = (i: number): number => variants[i]?.numInferenceSteps ?? numInferenceSteps;
  const requestOf = (i: number): Partial<GenerateOptions> => {
    const { sampler, timestepSpacing, cache = "none" } = variants[i] as CompareVariant;
    return {
      ...common,
      ...(sampler !== undefined && { sampler }),
      ...(timestepSpacing !== undefined && { timestepSpacing }),
      cache,
      numInferenceSteps: stepsOf(i),
    };
  };
  for (const i of variants.keys()) await check(pipeline, { ...requestOf(i), classLabels, seed });

  const settings = variants.map(({ cache = "none" }) => cacheSettings(cache, pipeline.presets, pipeline.levels));
  const costs = settings.map((cache, i) => expectedCost(cache, pipeline, stepsOf(i)));
  const total = labels.length * costs.reduce((a, b) => a + b, 0);
  const rounds = Math.ceil(labels.length / batchSize);
  const parts: Part[][] = variants.map(() => []);
  let spent = 0;
  for (let first = 0, round = 0; first < labels.length; first += batchSize, round++) {
    const batch = labels.slice(first, first + batchSize);
    const images = { classLabels: batch, seed: seedAfter(seed, first) };
    const turns = [...variants.keys()];
    for (const i of round % 2 ? turns.reverse() : turns) {
      const cache = settings[i] as CacheSettings;
      const variant = variants[i] as CompareVariant;
      await pipeline.warmUp(cache);
      if (round === 0) await pipeline.generate({ ...common, ...images, ...warmUpOf(cache) });
      let within = 0;
      const { images: drawn, report } = await pipeline.generate({
        ...requestOf(i),
        ...images,
        onStep: ({ step, full, images }) => {
          within += images.length * (full ? 1 : FORECAST_COST);
          const done = Math.min(1, (spent + within) / total);
          onProgress?.({ variant: variant.name, step, numInferenceSteps: stepsOf(i), done });
        },
      });
      spent += within;
      const part = { images: drawn, report };
      (parts[i] as Part[]).push(part);
      onResult?.({
        variant: variant.name,
        round: round + 1,
        rounds,
        images: batch.length,
        durationMs: durationOf(part),
        ...(i > 0 && against(part, parts[0]?.[round])),
      });
    }
  }

  const reference = parts[0] as Part[];
  const { report } = reference[0] as Part;
  return {
    model: report.model,
    dtype: report.dtype,
    numInferenceSteps,
    guidanceScale: report.guidanceScale,
    guidanceChannels: report.guidanceChannels,
    sampler: report.sampler,
    timestepSpacing: report.timestepSpacing,
    batchSize,
    subjects: imagesOf(reference).map(({ classId, className }, i) => ({
      classId,
      className,
      seed: seedAfter(seed, i),
    })),
    rows: parts.map((own, i) => summarise((variants[i] as CompareVariant).name, own, i === 0 ? undefined : reference)),
    images: parts.map((own) => imagesOf(own).map(({ width, height, data }) => ({ width, height, data }))),
  };
}

const optionTypes: OptionTypes<CompareOptions> = {
  classLabels: [Array.isArray, "a list of class names or numbers"],
  numImagesPerPrompt: generateTypes.numImagesPerPrompt,
  numInferenceSteps: generateTypes.numInferenceSteps,
  guidanceScale: generateTypes.guidanceScale,
  guidanceChannels: generateTypes.guidanceChannels,
  seed: generateTypes.seed,
  sampler: generateTypes.sampler,
  timestepSpacing: generateTypes.timestepSpacing,
  batchSize: generateTypes.batchSize,
  decodeTileSize: generateTypes.decodeTileSize,
  signal: generateTypes.signal,
  variants: [
    (value) => Array.isArray(value) && value.every((variant) => typeof variant === "object" && isString(variant?.name)),
    "a list of objects with a name",
  ],
  onProgress: [isFunction, "a function"],
  onResult: [isFunction, "a function"],
};

/** Has a request checked and not run, so that a bad one does not come to light after the work of those before it. */
async function check(pipeline: DiffusionPipeline, request: GenerateOptions): Promise<void> {
  const stop = new Error("checked");
  await pipeline.generate({ ...request, signal: AbortSignal.abort(stop) }).catch((error: unknown) => {
    if (error !== stop) throw error;
  });
}

/** The shortest run of every graph that the cache needs: the first full step, one with a past, and a forecast. */
const warmUpOf = (cache: CacheSettings): Partial<GenerateOptions> => ({
  ...("fullSteps" in cache || "interval" in cache
    ? { cache: { ...cache, fullSteps: [0, 1] }, numInferenceSteps: 3 }
    : { cache, numInferenceSteps: 1 }),
  outputType: "latent",
});

function against(part: Part, reference: Part | undefined): Pick<CompareResult, "measuredSpeedup" | "psnr"> {
  if (!reference) return {};
  return {
    measuredSpeedup: durationOf(reference) / durationOf(part),
    psnr: qualityOf(psnr, part.images, reference.images).mean,
  };
}

const imagesOf = (parts: readonly Part[]): GeneratedImage[] => parts.flatMap(({ images }) => [...images]);
const durationOf = ({ report }: Part): number => report.conditioningMs + report.stepsMs;
const sumOf = <T>(items: readonly T[], of: (item: T) => number): number => items.reduce((sum, x) => sum + of(x), 0);

/** @param reference undefined if the parts are the reference */
function summarise(name: string, parts: readonly Part[], reference: readonly Part[] | undefined): ComparisonRow {
  const { report } = parts[0] as Part;
  const against = reference ?? parts;
  const flops = sumOf(parts, (part) => part.report.flops.done);
  const durationMs = sumOf(parts, durationOf);
  const images = imagesOf(parts);
  const fits = images.every(({ width, height }) => Math.min(width, height) >= SSIM_MIN_SIDE);
  return {
    name,
    cache: report.cache,
    sampler: report.sampler,
    timestepSpacing: report.timestepSpacing,
    numInferenceSteps: report.numInferenceSteps,
    warnings: report.warnings,
    fullSteps: parts.flatMap((part) => [...part.report.fullSteps]),
    flops,
    flopsSpeedup: sumOf(against, (part) => part.report.flops.done) / flops,
    durationMs,
    measuredSpeedup: sumOf(against, durationOf) / durationMs,
    measuredSpeedups: parts.map((part, round) => durationOf(against[round] as Part) / durationOf(part)),
    ...(reference && { psnr: qualityOf(psnr, images, imagesOf(reference)) }),
    ...(reference && fits && { ssim: qualityOf(ssim, images, imagesOf(reference)) }),
    stateBytes: Math.max(...parts.map((part) => part.report.stateBytes)),
    steps: mergeSteps(parts),
  };
}

function qualityOf(
  metric: (a: RgbImage, b: RgbImage) => number,
  images: readonly RgbImage[],
  reference: readonly RgbImage[],
): Quality {
  const values = images.map((image, i) => metric(image, reference[i] as RgbImage));
  const mean = sumOf(values, (value) => value) / values.length;
  const variance = sumOf(values, (value) => (value - mean) ** 2) / (values.length - 1);
  const standardError = Math.sqrt(variance / values.length);
  return { mean, standardError: Number.isFinite(standardError) ? standardError : undefined, values };
}

/** Times of a step add up over all runs; errors are averaged as squares and betas as they are, by images. */
function mergeSteps(parts: readonly Part[]): ComparisonStep[] {
  const records = parts.flatMap(({ report }) => report.batches.flatMap(({ steps }) => [...steps]));
  const images = sumOf(parts, ({ report }) => report.fullSteps.length);
  const numSteps = 1 + Math.max(-1, ...records.map(({ step }) => step));
  return Array.from({ length: numSteps }, (_, step) => {
    const all = records.filter((record) => record.step === step);
    const kept = all.filter(({ rejected }) => !rejected);
    const mean = (of: (record: StepRecord) => number): number =>
      sumOf(kept, (record) => (record.images.length / images) * of(record));
    return {
      step,
      timestep: all[0]?.timestep as number,
      computed: mean(({ full }) => (full ? 1 : 0)),
      durationMs: sumOf(all, ({ durationMs }) => durationMs),
      ...(kept.every(({ forecastError }) => forecastError) && {
        forecastError: Math.sqrt(mean(({ forecastError }) => (forecastError?.relativeError ?? 0) ** 2)),
      }),
      ...(kept.every(({ beta }) => beta) && { beta: mean(({ beta }) => beta?.mean ?? 0) }),
    };
  });
}
