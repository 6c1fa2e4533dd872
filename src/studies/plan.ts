import type { DiffusionPipeline, SubjectOptions } from "../pipelines/index.js";
import { ownSteps } from "../samplers/index.js";
import type { CompareOptions } from "./compare.js";
import { expectedCost } from "./expected-cost.js";
import { uncachedStepMs } from "./step-time.js";
import { studySubjects } from "./subjects.js";
import { type CompareVariant, stepsOf } from "./variants.js";

/** How much a comparison draws. */
export interface ComparisonPlan {
  readonly subjects: SubjectOptions;
  /** In all. */
  readonly images: number;
  readonly batchSize: number;
  /** Time of a full step for one image, as measured here, milliseconds. */
  readonly stepMs: number;
  /** Time that the comparison is expected to take, milliseconds. */
  readonly expectedMs: number;
}

/** Until all is drawn, milliseconds. */
const WHOLE_MS = 55_000;
/** Until the first variant has drawn its first batch, milliseconds: of ten seconds, what building, opening and measuring leave. */
const FIRST_MS = 4_000;
const MAX_BATCH = 5;

type PlanOptions = CompareOptions & { readonly variants: readonly CompareVariant[] };

/**
 * Measures a step and chooses what the options leave open so that a comparison shows its first result within ten seconds
 * and is done in about a minute, but for machines or models so slow that one image of each variant takes longer.
 *
 * What to draw, if not given, is as many as fit of the model's examples; the batch is the largest, up to 5, whose
 * first result comes in time.
 * @throws FemoError E_OPTION if an option is out of range; the signal's reason if it was aborted
 */
export async function planComparison(pipeline: DiffusionPipeline, options: PlanOptions): Promise<ComparisonPlan> {
  const { numInferenceSteps, guidanceScale, guidanceChannels, sampler, timestepSpacing, signal } = options;
  const stepMs = await uncachedStepMs(pipeline, {
    ...studySubjects(pipeline, options).slice(0, 1),
    ...(numInferenceSteps !== undefined && { numInferenceSteps }),
    ...(guidanceScale !== undefined && { guidanceScale }),
    ...(guidanceChannels !== undefined && { guidanceChannels }),
    ...(sampler !== undefined && { sampler }),
    ...(timestepSpacing !== undefined && { timestepSpacing }),
    ...(signal && { signal }),
  });
  return planFor(stepMs, pipeline, options);
}

/** The plan for a machine that takes so many milliseconds for a full step of one image. */
export function planFor(stepMs: number, pipeline: DiffusionPipeline, options: PlanOptions): ComparisonPlan {
  const { numImagesPerPrompt = 1 } = options;
  const { numInferenceSteps = ownSteps(options.sampler) ?? pipeline.defaults.numInferenceSteps } = options;
  const all = studySubjects(pipeline, options);
  const { convergedSteps = 0, variants } = options;
  const warmUp = 1 + 3 * variants.length; // steps before the first timed ones
  const costs = variants.map((variant) => {
    const { sampler = options.sampler } = variant;
    const timestepSpacing =
      variant.timestepSpacing ?? (ownSteps(variant.sampler) !== undefined ? undefined : options.timestepSpacing);
    return expectedCost(pipeline, {
      ...all.slice(0, 1),
      numInferenceSteps: stepsOf(variant, numInferenceSteps),
      ...(sampler && { sampler }),
      ...(timestepSpacing && { timestepSpacing }),
      cache: variant.cache ?? "none",
    });
  });
  const perImage = costs.reduce((a, b) => a + b, numInferenceSteps + convergedSteps);

  const fitting = (ms: number, steps: number): number => Math.max(1, Math.floor(ms / stepMs / steps));
  const largest = options.batchSize ?? Math.min(MAX_BATCH, fitting(FIRST_MS, convergedSteps + numInferenceSteps + 1));
  const spared = Math.max(0, WHOLE_MS - largest * warmUp * stepMs);
  const given = options[pipeline.subjectOption] !== undefined;
  const count = given ? all.count : Math.min(all.count, fitting(spared, perImage * numImagesPerPrompt));
  const images = count * numImagesPerPrompt;
  const batchSize = options.batchSize ?? Math.max(1, Math.min(largest, images));
  const expectedMs = stepMs * (images * perImage + Math.min(batchSize, images) * warmUp);
  return { subjects: all.slice(0, count), images, batchSize, stepMs, expectedMs };
}
