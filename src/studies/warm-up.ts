import { cacheSettings, methodOf, plannedKinds } from "../methods/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";

/** A kind of step that has not come by then is not waited for. */
const MOST_STEPS = 10;

/**
 * Runs the first steps of a request, until each kind of step that its method takes has run, and one that captures
 * features a second time, as the first has no past.
 */
export async function warmUp(
  pipeline: DiffusionPipeline,
  request: GenerateOptions & { numInferenceSteps: number },
): Promise<void> {
  const settings = cacheSettings(request.cache ?? "none", pipeline.presets, pipeline.levels);
  const method = methodOf(settings, pipeline);
  const kinds = plannedKinds(method, request.numInferenceSteps) ?? Object.keys(method.cuts);
  const ahead = new Map(kinds.map((kind) => [kind, method.cuts[kind]?.capture ? 2 : 1]));
  for await (const { step, kind } of pipeline.stream({ ...request, outputType: "latent" })) {
    const left = (ahead.get(kind) ?? 1) - 1;
    if (left > 0) ahead.set(kind, left);
    else ahead.delete(kind);
    if (ahead.size === 0 || step + 1 === MOST_STEPS) break;
  }
}
