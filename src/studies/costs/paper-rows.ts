import { type CacheOptions, methodTitle, teaCache } from "../../methods/index.js";
import type { Run, Unknown } from "./run.js";

/** A row of a table as printed, and what it ran. */
export interface PaperRow {
  readonly method: string;
  /** N and O, as printed. */
  readonly interval?: number;
  readonly order?: number;
  /** 10^12 operations an image. */
  readonly flops: number;
  readonly speed: number;
  readonly run: Run | Unknown;
  /** Values that contradict the paper's own, or its methods' published code, and why. */
  readonly slip?: { readonly of: readonly ("flops" | "speed")[]; readonly why: string };
  /** What the reproduction takes for granted. */
  readonly note?: string;
}
type Remarks = Pick<PaperRow, "slip" | "note">;

/** Of all runs but those with fewer steps. */
const NUM_STEPS = 50;

/** Fewer steps of the sampler, all computed. */
export const steps = (method: string, numSteps: number, flops: number, speed: number): PaperRow => ({
  method,
  flops,
  speed,
  run: { cache: "none", numSteps },
});

/** A caching method with settings under which femo runs the steps of its authors' code. */
export const cached = (
  cache: Exclude<CacheOptions, string>,
  flops: number,
  speed: number,
  { projects, ...remarks }: Remarks & Pick<Run, "projects"> = {},
): PaperRow => ({
  method: methodTitle(cache.method),
  ...("interval" in cache && cache.interval !== undefined && { interval: cache.interval }),
  ...("order" in cache && cache.order !== undefined && { order: cache.order }),
  flops,
  speed,
  run: { cache, numSteps: NUM_STEPS, ...(projects && { projects }) },
  ...remarks,
});

/** TeaCache on FLUX; which steps are full came out of the threshold. */
export const thresholded = (threshold: number, fullSteps: number, flops: number, speed: number): PaperRow => ({
  method: `TeaCache l=${threshold}`,
  flops,
  speed,
  run: { cache: teaCache({ threshold, coefficients: "flux" }), numSteps: NUM_STEPS, fullSteps },
  note: `${fullSteps} steps of the blocks' products; the others counted as nothing`,
});

export const unknown = (method: string, flops: number, speed: number, reason: string, interval?: number): PaperRow => ({
  method,
  ...(interval !== undefined && { interval }),
  flops,
  speed,
  run: { reason },
});
