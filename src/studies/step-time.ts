import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";
import { quantile } from "./quality.js";

/** How long to measure: at most so many steps beside the first, and after two of them no longer than this. */
export interface StepTiming {
  /** Default 10. */
  readonly steps?: number;
  /** Milliseconds. Default 1000. */
  readonly ms?: number;
}

/**
 * Median time of an uncached step of a request for one of its images, in milliseconds, as things are now: other work on the
 * machine, and its clock, change within minutes. The first step, which also warms up, does not count unless there is no other.
 * @throws FemoError as `generate`; the signal's reason if it was aborted
 */
export async function uncachedStepMs(
  pipeline: DiffusionPipeline,
  request: GenerateOptions,
  { steps = 10, ms = 1000 }: StepTiming = {},
): Promise<number> {
  const times: number[] = [];
  let spent = 0;
  for await (const { durationMs, images } of pipeline.stream({ ...request, cache: "none", outputType: "latent" })) {
    times.push(durationMs / images.length);
    spent += durationMs;
    if (times.length > steps || (times.length > 2 && spent > ms)) break;
  }
  return quantile(times.length > 1 ? times.slice(1) : times, 0.5);
}
