import type { Observed, Sampled } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import {
  type CachePresets,
  type Method,
  type PlacedSchedule,
  type Sampling,
  uncachedMethod,
  X0,
} from "../../methods/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../../pipelines/index.js";
import { checkInteger, checkTypes, isString } from "../../pipelines/option-types.js";
import { samplingOf } from "../../pipelines/request.js";
import { seedAfter } from "../../samplers/index.js";
import { graphNames } from "../../tracing/index.js";
import type { StudyOptions } from "../study-options.js";
import { studySubjects } from "../subjects.js";

/** What the sampler is given, which is no level at which anything is kept: the rows of an image's output, guided. */
export const GUIDED = "guided";

/** What to draw, uncached, and what to look at on the way. Options not described here are those of `generate`. */
export interface TrajectoryOptions extends StudyOptions, Pick<GenerateOptions, "numImagesPerPrompt" | "onStep"> {
  /**
   * Which feature: one of a level of the model, "x0", which is what the sampler takes the output to mean, or "guided",
   * which is the output as the sampler gets it. Default "output".
   */
  level?: string;
  /** Which of the features of that level, by name. Default: the one in the middle of the network. */
  site?: string;
  /** Give the features too, beside their inner products. Default false. */
  keepFeatures?: boolean;
}

/** The path of a feature over all steps, of one row of an image: with what it is to show, or without, under guidance. */
export interface TrajectoryRow {
  /** Inner products of the features of all steps, [steps, steps]: all that forecasts, errors and planes depend on. */
  readonly gram: readonly (readonly number[])[];
  /** Of each step, if they were to be kept. */
  readonly features?: readonly Float32Array[];
}

/** The path of an image. */
export interface Trajectory {
  /** Its index in the study, from 0. */
  readonly image: number;
  /** The class or prompt. */
  readonly subject: string | number;
  readonly seed: number | bigint;
  /** One for each run of the network in a step; "x0" and "guided" have one. */
  readonly rows: readonly TrajectoryRow[];
}

/** Features over the steps of uncached images: plain data, unless features are kept. */
export interface Trajectories {
  readonly model: string;
  readonly level: string;
  readonly site: string;
  /** Of a feature of one row. */
  readonly dims: readonly number[];
  /** Fed to the model, of each step. */
  readonly timesteps: readonly number[];
  /** Where each step lies on the axis along which features are forecast. */
  readonly positions: readonly number[];
  readonly sampling: Sampling;
  /** What methods go by that are not told otherwise, and where full steps were placed for the model. */
  readonly presets: CachePresets;
  readonly schedules: readonly PlacedSchedule[];
  readonly trajectories: readonly Trajectory[];
}

const DEFAULT_EXAMPLES = 4;
/** What the features of a batch may take at most. */
const MAX_BYTES = 2 ** 31;

/**
 * Draws images without a cache, and records one feature of every step. Forecasts are linear, so what is recorded of a path
 * is the inner products of its points.
 * @throws FemoError E_OPTION if an option is out of range, the model has no such level or site, or the features are too
 *   large to be held together; the signal's reason if it was aborted
 */
export async function recordTrajectories(
  pipeline: DiffusionPipeline,
  options: TrajectoryOptions = {},
): Promise<Trajectories> {
  const { level = "output", site: wanted, keepFeatures = false, numImagesPerPrompt: copies = 1, ...drawn } = options;
  checkTypes({ level, site: wanted, keepFeatures }, ownTypes);
  checkInteger("numImagesPerPrompt", copies, 1, 100_000);
  const site = siteOf(pipeline, level, wanted);
  const given = drawn[pipeline.subjectOption] !== undefined;
  const request = {
    ...drawn,
    ...studySubjects(pipeline, drawn, copies).slice(0, given ? undefined : DEFAULT_EXAMPLES * copies),
  };
  const subjects = [request[pipeline.subjectOption] ?? []].flat();
  const held = keepFeatures ? subjects.length : Math.min(request.batchSize ?? 4, subjects.length);
  const paths = subjects.map(() => new Path());
  let seen = undefined as { readonly dims: readonly number[]; readonly sampler: Sampled["sampler"] } | undefined;
  await pipeline.observe(request, recording(level, site), (image, step, outputs, sampled) => {
    const { sampler } = sampled;
    const { dims, rows } = featureAt(level, site, step, outputs, sampled);
    const { length } = sampler.timesteps;
    checkSize(4 * (rows[0]?.length ?? 0) * rows.length * length * held, level, site);
    seen = { dims, sampler };
    const path = paths[image] as Path;
    path.add(rows);
    if (!keepFeatures && step === length - 1) path.forget();
  });

  const { dims, sampler } = seen as NonNullable<typeof seen>; // there is an image at least, and a step
  return {
    model: pipeline.name,
    level,
    site,
    dims,
    timesteps: sampler.timesteps,
    positions: sampler.timesteps.map((_, step) => sampler.position(step)),
    sampling: samplingOf(sampler),
    presets: pipeline.presets,
    schedules: pipeline.schedules,
    trajectories: subjects.map((subject, image) => ({
      image,
      subject,
      seed: seedAfter(options.seed ?? 0, image),
      rows: (paths[image] as Path).rows(keepFeatures),
    })),
  };
}

/** An image's path as it grows. */
class Path {
  /** [rows][steps] */
  readonly #features: Float32Array[][] = [];
  /** [rows][steps][steps] */
  readonly #grams: number[][][] = [];

  /** @param features of a step, of each row */
  add(features: readonly Float32Array[]): void {
    for (const [row, feature] of features.entries()) {
      const path = [...(this.#features[row] ?? []), feature];
      const products = path.map((other) => dot(feature, other));
      const known = this.#grams[row] ?? [];
      this.#features[row] = path;
      this.#grams[row] = [...known.map((of, step) => [...of, products[step] as number]), products];
    }
  }

  /** The features are not needed any more. */
  forget(): void {
    this.#features.length = 0;
  }

  rows(withFeatures: boolean): TrajectoryRow[] {
    return this.#grams.map((gram, row) => ({
      gram,
      ...(withFeatures && { features: this.#features[row] as Float32Array[] }),
    }));
  }
}

const ownTypes = {
  level: [isString, "a string"],
  site: [isString, "a string"],
  keepFeatures: [(value: unknown) => typeof value === "boolean", "true or false"],
} as const;

/** Levels whose features no graph gives out: what is looked at is the sampler's. */
const isSampled = (level: string): boolean => level === X0 || level === GUIDED;

function siteOf(pipeline: DiffusionPipeline, level: string, wanted: string | undefined): string {
  const levels = [...pipeline.levels, GUIDED];
  if (!levels.includes(level)) {
    throw new FemoError("E_OPTION", `level: expected one of ${levels.join(", ")}, found ${JSON.stringify(level)}`);
  }
  const sites = isSampled(level) ? [level] : pipeline.sites(level);
  const site = wanted ?? (sites[Math.floor(sites.length / 2)] as string);
  if (sites.includes(site)) return site;
  throw new FemoError("E_OPTION", `site: expected one of ${sites.join(", ")}, found ${JSON.stringify(site)}`);
}

function checkSize(bytes: number, level: string, site: string): void {
  if (bytes <= MAX_BYTES) return;
  throw new FemoError(
    "E_OPTION",
    `level, site: the features of ${site} at the level ${JSON.stringify(level)} take ${bytes} bytes over all steps of the ` +
      `images that are held together, expected at most ${MAX_BYTES}: lower batchSize, numInferenceSteps or the image's sides`,
  );
}

/** Computes everything, and gives out what is looked at. */
const recording = (level: string, site: string): Method =>
  isSampled(level) ? uncachedMethod : { ...uncachedMethod, cuts: { full: { capture: { sites: [site] } } } };

/** The feature of each row of an image. */
function featureAt(level: string, site: string, step: number, outputs: Observed, sampled: Sampled): Observed[string] {
  const { sampler, latent, output } = sampled;
  const shown = outputs[graphNames.feature(site)];
  if (shown) return shown;
  return { dims: [output.length], rows: [level === X0 ? sampler.denoised(step, latent, output) : output] };
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}
