import { FemoError } from "../errors.js";
import type { RgbImage } from "../images/index.js";
import { psnr, ssim } from "../metrics/index.js";
import { cacheSettings, forecasterOf, measures } from "../pipelines/cache-options.js";
import type {
  CacheSettings,
  DiffusionPipeline,
  GeneratedImage,
  GenerateOptions,
  GenerationReport,
  ModelDtype,
  StepRecord,
} from "../pipelines/index.js";
import { MAX_WHOLE_SESSIONS } from "../pipelines/model-runner.js";
import type { SamplerName } from "../samplers/index.js";
import { type CompareVariant, defaultVariants, fullStepsOf } from "./variants.js";

/** Told after every step. */
export interface CompareProgress {
  /** Name of the variant at work. */
  readonly variant: string;
  readonly step: number;
  readonly numInferenceSteps: number;
  /** Share of all the work that is done, 0 .. 1, by its expected cost. */
  readonly done: number;
}

/** What to compare. Options not described here are those of `generate`. */
export interface CompareOptions
  extends Pick<
    GenerateOptions,
    | "numImages"
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
export interface ComparisonStep extends Pick<StepRecord, "step" | "timestep" | "kind"> {
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
  readonly numInferenceSteps: number;
  /** Steps that ran the whole network. */
  readonly fullSteps: readonly number[];
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
  readonly subjects: readonly { readonly classId: number; readonly className: string; readonly seed: number }[];
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
/** Share of a full step that a forecast step takes, for telling progress only. */
const FORECAST_COST = 0.1;

/**
 * Draws the same images in several ways, from the same noise, and measures each way against an uncached run.
 *
 * Work goes in rounds of one batch: in a round every variant draws that batch, in turns whose order is reversed from
 * round to round, so that whatever else the machine does falls on all of them alike. Graphs are loaded and run once
 * before they are timed.
 * @throws FemoError E_OPTION if an option is out of range; the signal's reason if it was aborted
 */
export async function compare(pipeline: DiffusionPipeline, options: CompareOptions = {}): Promise<Comparison> {
  const { numImages = 1, numInferenceSteps = 50, seed = 0, batchSize = 4, signal, onProgress } = options;
  const { guidanceScale, guidanceChannels, sampler, timestepSpacing, decodeTileSize } = options;
  const classLabels = options.classLabels ?? [...pipeline.classes.keys()].slice(0, 10);
  if (!(Number.isInteger(numImages) && numImages >= 1 && Number.isInteger(batchSize) && batchSize >= 1)) {
    throw new FemoError(
      "E_OPTION",
      `numImages, batchSize: expected positive integers, found ${numImages}, ${batchSize}`,
    );
  }
  const labels = classLabels.flatMap((label) => new Array<string | number>(numImages).fill(label));
  if (labels.length === 0) throw new FemoError("E_OPTION", "classLabels: expected at least one class, found none");
  const variants: CompareVariant[] = [
    { name: "No cache" },
    ...(options.variants ?? defaultVariants(pipeline.presets, { numInferenceSteps })),
  ];
  const repeated = variants.find(({ name }, i) => variants.findIndex((other) => other.name === name) !== i);
  if (repeated) throw new FemoError("E_OPTION", `variants: the name "${repeated.name}" is there twice`);
  const settings = variants.map(({ cache = "none" }) => cacheSettings(cache, pipeline.presets));
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
  const costs = settings.map((cache, i) => {
    const full = fullStepsOf(cache, stepsOf(i)).length;
    return full + FORECAST_COST * (stepsOf(i) - full);
  });
  const total = labels.length * costs.reduce((a, b) => a + b, 0);
  const graphs = settings.map(graphsOf);
  const keepsAll = levelsOf(settings).size <= MAX_WHOLE_SESSIONS;
  const warm = new Set<string>();
  const parts: Part[][] = variants.map(() => []);
  let spent = 0;
  for (let first = 0, round = 0; first < labels.length; first += batchSize, round++) {
    const batch = labels.slice(first, first + batchSize);
    const request = { ...common, classLabels: batch, seed: seed + first };
    const turns = [...variants.keys()];
    for (const i of round % 2 ? turns.reverse() : turns) {
      const cache = settings[i] as CacheSettings;
      if (!warm.has(graphs[i] as string)) {
        if (!keepsAll) warm.clear();
        warm.add(graphs[i] as string);
        await pipeline.warmUp(cache);
        await pipeline.generate({
          ...request,
          cache,
          numInferenceSteps: Math.min(3, stepsOf(i)),
          outputType: "latent",
        });
      }
      let within = 0;
      const variant = variants[i] as CompareVariant;
      const part = await pipeline.generate({
        ...request,
        ...(variant.sampler !== undefined && { sampler: variant.sampler }),
        cache,
        numInferenceSteps: stepsOf(i),
        onStep: ({ step, kind }) => {
          within += batch.length * (kind === "full" ? 1 : FORECAST_COST);
          const done = Math.min(1, (spent + within) / total);
          onProgress?.({ variant: variant.name, step, numInferenceSteps: stepsOf(i), done });
        },
      });
      spent += within;
      (parts[i] as Part[]).push(part);
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
    subjects: imagesOf(reference).map(({ classId, className }, i) => ({ classId, className, seed: seed + i })),
    rows: parts.map((own, i) => summarise((variants[i] as CompareVariant).name, own, i === 0 ? undefined : reference)),
    images: parts.map((own) => imagesOf(own).map(({ width, height, data }) => ({ width, height, data }))),
  };
}

/** Levels whose graphs hold all the weights; an uncached step runs on any of them. */
const levelsOf = (settings: readonly CacheSettings[]): Set<string> =>
  new Set(settings.flatMap((cache) => (cache.method === "none" ? [] : [cache.granularity])));
/** Variants that run the same graphs have the same key. */
function graphsOf(settings: CacheSettings): string {
  if (settings.method === "none") return "none";
  const { history, recent, averages } = forecasterOf(settings);
  return `${settings.granularity} ${history} ${recent} ${averages} ${measures(settings)}`;
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
    numInferenceSteps: report.numInferenceSteps,
    fullSteps: report.fullSteps,
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

/** Batches run the same steps; times add up, errors are averaged as squares and betas as they are, by images. */
function mergeSteps(parts: readonly Part[]): ComparisonStep[] {
  const batches = parts.flatMap(({ report }) => [...report.batches]);
  const images = sumOf(batches, (batch) => batch.images.length);
  const steps = batches[0]?.steps ?? [];
  return steps.map(({ step, timestep, kind }, i) => {
    const records = batches.map((batch) => ({
      weight: batch.images.length / images,
      ...(batch.steps[i] as StepRecord),
    }));
    return {
      step,
      timestep,
      kind,
      durationMs: sumOf(records, (record) => record.durationMs),
      ...(records.every(({ forecast }) => forecast) && {
        forecastError: Math.sqrt(
          sumOf(records, ({ weight, forecast }) => weight * (forecast?.relativeError ?? 0) ** 2),
        ),
      }),
      ...(records.every(({ beta }) => beta) && {
        beta: sumOf(records, ({ weight, beta }) => weight * (beta?.mean ?? 0)),
      }),
    };
  });
}
