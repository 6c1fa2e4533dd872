import { graphKinds } from "../denoising/index.js";
import { methodOf, plannedKinds } from "../methods/index.js";
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
  const method = methodOf(pipeline.cacheSettings(request.cache ?? "none", request), pipeline);
  const kinds = plannedKinds(method, request.numInferenceSteps) ?? Object.keys(method.cuts);
  const captures = new Set(graphKinds(method).flatMap(([kind, { capture }]) => (capture ? [kind] : [])));
  const ahead = new Map(kinds.map((kind) => [kind, captures.has(kind) ? 2 : 1]));
  for await (const { step, kind } of pipeline.stream({ ...request, outputType: "latent" })) {
    const left = (ahead.get(kind) ?? 1) - 1;
    if (left > 0) ahead.set(kind, left);
    else ahead.delete(kind);
    if (ahead.size === 0 || step + 1 === MOST_STEPS) break;
  }
}
