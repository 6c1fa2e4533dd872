import { conditioningFlops, type StepBatch, stepsFlops } from "../denoising/index.js";
import { plannedKinds } from "../methods/index.js";
import { BATCH } from "../tracing/index.js";
import { batchGroups, rowsOf } from "./batches.js";
import type { GenerationReport } from "./report.js";
import type { Request } from "./request.js";

/** What the report of a request will count, if its method knows all steps beforehand; undefined if it looks before it decides. */
export function plannedFlops(request: Request): GenerationReport["flops"] | undefined {
  const { backbone } = request;
  const { timesteps } = request.sampler;
  const kinds = plannedKinds(request.method, timesteps.length);
  if (!kinds) return undefined;
  const conditioning = batchGroups(request).reduce((sum, { conditions }) => {
    return sum + conditioningFlops(backbone, timesteps.length, conditions.length, request.sizes);
  }, 0);
  const steps = stepBatches(request).map((batch) => stepsFlops(backbone, request.method, kinds, batch));
  const done = steps.reduce((a, b) => a + b, conditioning);
  const uncached = conditioning + uncachedFlops(request);
  return { done, uncached, speedup: uncached / done };
}

/** Floating-point operations of the steps of a request if each were a plain one. */
export function uncachedFlops(request: Request): number {
  const plain = request.backbone.cut({}).network;
  const { length } = request.sampler.timesteps;
  return stepBatches(request).reduce((sum, { bindings }) => sum + length * plain.flops(bindings), 0);
}

/** The images that go through steps together. */
function stepBatches(request: Request): StepBatch[] {
  return batchGroups(request).flatMap(({ batches }) =>
    batches.map((images) => {
      const rows = images.flatMap((image) => rowsOf(request, image)).length;
      return { images: images.length, bindings: { ...request.sizes, [BATCH]: rows } };
    }),
  );
}
