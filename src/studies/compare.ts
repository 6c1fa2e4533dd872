import { FemoError } from "../errors.js";
import type { RgbImage } from "../images/index.js";
import { psnr } from "../metrics/index.js";
import type { DiffusionPipeline, GenerateOptions, ModelDtype, Shown } from "../pipelines/index.js";
import {
  checkInteger,
  checkTypes,
  isFunction,
  isNumber,
  isString,
  type OptionTypes,
} from "../pipelines/option-types.js";
import { generateTypes, MAX_RESULT_BYTES } from "../pipelines/request.js";
import { subjectTypes } from "../pipelines/subject-options.js";
import { ownSteps, type SamplerName, type SamplerSettings, seedAfter } from "../samplers/index.js";
import { checkGenerate } from "./check-generate.js";
import { convergedRequest } from "./converged.js";
import { expectedCost, FORECAST_COST } from "./expected-cost.js";
import { type ComparisonRow, durationOf, imagesOf, likeness, type Part, rowOf } from "./rows.js";
import type { StudyOptions } from "./study-options.js";
import { studySubjects } from "./subjects.js";
import { type CompareVariant, defaultVariants, stepsOf } from "./variants.js";
import { warmUp } from "./warm-up.js";

/** Told after every step. */
export interface CompareProgress {
  /** Name of the variant at work, "Converged" for the converged reference. */
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
export interface CompareOptions extends StudyOptions, Pick<GenerateOptions, "numImagesPerPrompt" | "decodeTileSize"> {
  /** Ways to draw, besides the uncached reference, which always runs. Default: `defaultVariants`. */
  variants?: readonly CompareVariant[];
  /**
   * Draws the images in so many uncached steps too, first in each round, and gives every row its likeness to those, the
   * reference's too. In the reference's sampler and spacing, or in "dit" where that does not go so far. Default: does not.
   */
  convergedSteps?: number;
  /** Called after every step; what it throws ends the comparison. */
  onProgress?: (progress: CompareProgress) => void;
  /** Called when a variant is through with a round; what it throws ends the comparison. */
  onResult?: (result: CompareResult) => void;
}

/** A comparison: plain data but for `images`. */
export interface Comparison {
  readonly model: string;
  readonly dtype: ModelDtype;
  readonly numInferenceSteps: number;
  readonly guidanceScale: number;
  readonly guidanceChannels: "all" | number;
  readonly sampler: SamplerName;
  /** Of the reference, if some were given. */
  readonly samplerSettings?: SamplerSettings;
  readonly timestepSpacing: string;
  readonly batchSize: number;
  /** How the converged reference was drawn, if it was. */
  readonly converged?: { readonly numInferenceSteps: number; readonly timestepSpacing: string };
  /** What each image shows, and its seed. */
  readonly subjects: readonly (Shown & { readonly seed: number | bigint })[];
  /** The uncached reference first. */
  readonly rows: readonly ComparisonRow[];
  /** Images of each row, in the order of the subjects. */
  readonly images: readonly (readonly RgbImage[])[];
}

/**
 * Draws the same images in several ways, from the same noise, and measures each way against an uncached run.
 *
 * Work goes in rounds of one batch: in a round every variant draws that batch, in turns whose order is reversed from
 * round to round, so that whatever else the machine does falls on all of them alike. Before a variant is timed its graphs
 * are loaded, and before it is timed first they are run. A converged reference is not timed.
 * @throws FemoError E_OPTION if an option is out of range; the signal's reason if it was aborted
 */
export async function compare(pipeline: DiffusionPipeline, options: CompareOptions = {}): Promise<Comparison> {
  checkTypes(options, optionTypes);
  const {
    numImagesPerPrompt = 1,
    numInferenceSteps = ownSteps(options.sampler) ?? pipeline.defaults.numInferenceSteps,
    seed = 0,
    batchSize = 4,
    signal,
  } = options;
  const { guidanceScale, guidanceChannels, sampler, timestepSpacing, decodeTileSize, onProgress, onResult } = options;
  const { convergedSteps } = options;
  checkInteger("numInferenceSteps", numInferenceSteps, 1, 100_000);
  checkInteger("numImagesPerPrompt", numImagesPerPrompt, 1, 100_000);
  checkInteger("batchSize", batchSize, 1, 1024);
  if (convergedSteps !== undefined) checkInteger("convergedSteps", convergedSteps, 1, 100_000);
  const variants: CompareVariant[] = [
    { name: "No cache" },
    ...(options.variants ?? defaultVariants(pipeline, { numInferenceSteps })),
  ];
  const repeated = variants.find(({ name }, i) => variants.findIndex((other) => other.name === name) !== i);
  if (repeated) throw new FemoError("E_OPTION", `variants: the name "${repeated.name}" is there twice`);
  const kept = variants.length + (convergedSteps === undefined ? 0 : 1); // all images are
  const all = studySubjects(pipeline, options, numImagesPerPrompt);
  const [height, width] = pipeline.imageSize(options);
  const most = Math.floor(MAX_RESULT_BYTES / (kept * 3 * height * width));
  checkInteger(`${pipeline.subjectOption}, numImagesPerPrompt: images in all`, all.count, 1, most);
  const common = {
    ...(guidanceScale !== undefined && { guidanceScale }),
    ...(guidanceChannels !== undefined && { guidanceChannels }),
    ...(decodeTileSize !== undefined && { decodeTileSize }),
    ...(signal && { signal }),
    batchSize,
  };

  const requests = variants.map((variant) => {
    const { cache = "none" } = variant;
    const own = variant.sampler ?? sampler;
    // A solver of the variant's own has timesteps of its own.
    const spacing = variant.timestepSpacing ?? (ownSteps(variant.sampler) !== undefined ? undefined : timestepSpacing);
    return {
      ...common,
      ...(own !== undefined && { sampler: own }),
      ...(spacing !== undefined && { timestepSpacing: spacing }),
      cache,
      ...all.slice(),
      seed,
      numInferenceSteps: stepsOf(variant, numInferenceSteps),
    };
  });
  for (const request of requests) await checkGenerate(pipeline, request);
  const converging =
    convergedSteps === undefined
      ? undefined
      : await convergedRequest(pipeline, { ...common, ...all.slice(), seed }, convergedSteps);

  const costs = requests.map((request) => expectedCost(pipeline, { ...request, ...all.slice(0, 1) }));
  const total = all.count * costs.reduce((a, b) => a + b, convergedSteps ?? 0);
  let spent = 0;
  const draw = async (variant: string, request: GenerateOptions, count: number, cost: number): Promise<Part> => {
    const own = cost * count;
    let within = 0;
    const { images, report } = await pipeline.generate({
      ...request,
      onStep: ({ step, full, images, numInferenceSteps }) => {
        within = Math.min(own, within + images.length * (full ? 1 : FORECAST_COST));
        onProgress?.({ variant, step, numInferenceSteps, done: Math.min(1, (spent + within) / total) });
      },
    });
    spent += own;
    return { images, report };
  };

  const rounds = Math.ceil(all.count / batchSize);
  const parts: Part[][] = variants.map(() => []);
  const convergedParts: Part[] = [];
  for (let first = 0, round = 0; first < all.count; first += batchSize, round++) {
    const images = { ...all.slice(first, first + batchSize), seed: seedAfter(seed, first) };
    const count = Math.min(batchSize, all.count - first);
    if (converging) {
      convergedParts.push(await draw("Converged", { ...converging, ...images }, count, convergedSteps as number));
    }
    const turns = [...variants.keys()];
    for (const i of round % 2 ? turns.reverse() : turns) {
      const { name } = variants[i] as CompareVariant;
      const request = { ...(requests[i] as (typeof requests)[number]), ...images };
      await pipeline.warmUp(request.cache, request);
      if (round === 0) await warmUp(pipeline, request);
      const part = await draw(name, request, count, costs[i] as number);
      (parts[i] as Part[]).push(part);
      onResult?.({
        variant: name,
        round: round + 1,
        rounds,
        images: count,
        durationMs: durationOf(part),
        ...(i > 0 && against(part, parts[0]?.[round])),
      });
    }
  }

  const reference = parts[0] as Part[];
  const { report } = reference[0] as Part;
  const converged = converging && imagesOf(convergedParts);
  return {
    model: report.model,
    dtype: report.dtype,
    numInferenceSteps,
    guidanceScale: report.guidanceScale,
    guidanceChannels: report.guidanceChannels,
    sampler: report.sampler,
    ...(report.samplerSettings && { samplerSettings: report.samplerSettings }),
    timestepSpacing: report.timestepSpacing,
    batchSize,
    ...(convergedParts[0] && { converged: drawnIn(convergedParts[0]) }),
    subjects: imagesOf(reference).map(({ width: _, height: __, data: ___, ...shown }, i) => ({
      ...shown,
      seed: seedAfter(seed, i),
    })),
    rows: parts.map((own, i) =>
      rowOf((variants[i] as CompareVariant).name, own, i === 0 ? undefined : reference, converged),
    ),
    images: parts.map((own) => imagesOf(own).map(({ width, height, data }) => ({ width, height, data }))),
  };
}

const optionTypes: OptionTypes<CompareOptions> = {
  ...subjectTypes,
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
  convergedSteps: [isNumber, "a number"],
  onProgress: [isFunction, "a function"],
  onResult: [isFunction, "a function"],
};

const drawnIn = ({ report: { numInferenceSteps, timestepSpacing } }: Part) => ({ numInferenceSteps, timestepSpacing });

function against(part: Part, reference: Part | undefined): Pick<CompareResult, "measuredSpeedup" | "psnr"> {
  if (!reference) return {};
  return {
    measuredSpeedup: durationOf(reference) / durationOf(part),
    psnr: likeness(psnr, part.images, reference.images).mean,
  };
}
