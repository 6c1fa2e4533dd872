import { isFull } from "../denoising/index.js";
import { methodOf, plannedKinds } from "../methods/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";

/** Share of a full step that a forecast step is taken to cost at least, for telling progress and choosing how much to draw. */
export const FORECAST_COST = 0.1;

/** The full steps, of the uncached ones, that cost as much as they do so many times faster. At least 1. */
export const stepsAtCost = (numInferenceSteps: number, speedup: number): number =>
  Math.max(1, Math.round(numInferenceSteps / speedup));

/** What an image of a request is expected to cost, in full steps; half of all, where the method looks before it decides. */
export function expectedCost(
  pipeline: DiffusionPipeline,
  request: GenerateOptions & { numInferenceSteps: number },
): number {
  const { numInferenceSteps, cache = "none" } = request;
  const method = methodOf(pipeline.cacheSettings(cache, request), pipeline);
  const kinds = plannedKinds(method, numInferenceSteps);
  if (!kinds) return numInferenceSteps / 2;
  const full = kinds.filter((kind) => isFull(method.cuts[kind] ?? {}, method)).length;
  if (full === numInferenceSteps) return full;
  const speedup = pipeline.plannedFlops(request)?.speedup ?? 1;
  return Math.max(numInferenceSteps / speedup, full + FORECAST_COST * (numInferenceSteps - full));
}
