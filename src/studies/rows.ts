import type { RgbImage } from "../images/index.js";
import type { CacheSettings } from "../methods/index.js";
import { psnr, ssim } from "../metrics/index.js";
import type { GeneratedImage, GenerationReport, StepRecord } from "../pipelines/index.js";
import type { SamplerName, SamplerSettings } from "../samplers/index.js";
import { type Quality, qualityOf } from "./quality.js";

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
  /** Settings of the sampler that the variant gives, if it does. */
  readonly samplerSettings?: SamplerSettings;
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
  /** Decibels against the images of the converged sampler, if there are some. */
  readonly psnrConverged?: Quality;
  /** At most 1; undefined for the reference and for images too small to compare. */
  readonly ssim?: Quality;
  /** Bytes of the features kept for one batch. */
  readonly stateBytes: number;
  readonly steps: readonly ComparisonStep[];
}

/** One variant's part of one round. */
export interface Part {
  readonly images: readonly GeneratedImage[];
  readonly report: GenerationReport;
}

/** Smallest side that SSIM's window fits into. */
const SSIM_MIN_SIDE = 11;
export const ssimFits = (images: readonly RgbImage[]): boolean =>
  images.every(({ width, height }) => Math.min(width, height) >= SSIM_MIN_SIDE);

export const imagesOf = (parts: readonly Part[]): GeneratedImage[] => parts.flatMap(({ images }) => [...images]);
export const durationOf = ({ report }: Part): number => report.conditioningMs + report.stepsMs;
const sumOf = <T>(items: readonly T[], of: (item: T) => number): number => items.reduce((sum, x) => sum + of(x), 0);

/** Of each image to that of the same place. */
export const likeness = (
  metric: (a: RgbImage, b: RgbImage) => number,
  images: readonly RgbImage[],
  wanted: readonly RgbImage[],
): Quality => qualityOf(images.map((image, i) => metric(image, wanted[i] as RgbImage)));

/**
 * A row from a variant's parts.
 * @param reference undefined if the parts are the reference
 * @param converged images of the converged sampler, if there are some
 */
export function rowOf(
  name: string,
  parts: readonly Part[],
  reference: readonly Part[] | undefined,
  converged: readonly RgbImage[] | undefined,
): ComparisonRow {
  const { report } = parts[0] as Part;
  const against = reference ?? parts;
  const flops = sumOf(parts, (part) => part.report.flops.done);
  const durationMs = sumOf(parts, durationOf);
  const images = imagesOf(parts);
  return {
    name,
    cache: report.cache,
    sampler: report.sampler,
    ...(report.samplerSettings && { samplerSettings: report.samplerSettings }),
    timestepSpacing: report.timestepSpacing,
    numInferenceSteps: report.numInferenceSteps,
    warnings: report.warnings,
    fullSteps: parts.flatMap((part) => [...part.report.fullSteps]),
    flops,
    flopsSpeedup: sumOf(against, (part) => part.report.flops.done) / flops,
    durationMs,
    measuredSpeedup: sumOf(against, durationOf) / durationMs,
    measuredSpeedups: parts.map((part, round) => durationOf(against[round] as Part) / durationOf(part)),
    ...(reference && { psnr: likeness(psnr, images, imagesOf(reference)) }),
    ...(reference && ssimFits(images) && { ssim: likeness(ssim, images, imagesOf(reference)) }),
    ...(converged && { psnrConverged: likeness(psnr, images, converged) }),
    stateBytes: Math.max(...parts.map((part) => part.report.stateBytes)),
    steps: mergeSteps(parts),
  };
}

/**
 * Times of a step add up over all runs; errors are averaged as squares and betas as they are, over the images that have
 * one, as images may decide differently.
 */
function mergeSteps(parts: readonly Part[]): ComparisonStep[] {
  const records = parts.flatMap(({ report }) => report.batches.flatMap(({ steps }) => [...steps]));
  const images = sumOf(parts, ({ report }) => report.fullSteps.length);
  const numSteps = 1 + Math.max(-1, ...records.map(({ step }) => step));
  return Array.from({ length: numSteps }, (_, step) => {
    const all = records.filter((record) => record.step === step);
    const kept = all.filter(({ rejected }) => !rejected);
    const forecastError = meanOf(kept, (record) => record.forecastError && record.forecastError.relativeError ** 2);
    const beta = meanOf(kept, (record) => record.beta?.mean);
    return {
      step,
      timestep: all[0]?.timestep as number,
      computed: sumOf(kept, (record) => (record.full ? record.images.length : 0)) / images,
      durationMs: sumOf(all, ({ durationMs }) => durationMs),
      ...(forecastError !== undefined && { forecastError: Math.sqrt(forecastError) }),
      ...(beta !== undefined && { beta }),
    };
  });
}

/** Mean over the images of the records that have a value; undefined if none has. */
function meanOf(records: readonly StepRecord[], of: (record: StepRecord) => number | undefined): number | undefined {
  const known = records.flatMap((record) => {
    const value = of(record);
    return value === undefined ? [] : [{ value, images: record.images.length }];
  });
  if (known.length === 0) return undefined;
  return sumOf(known, ({ value, images }) => value * images) / sumOf(known, ({ images }) => images);
}
