import type { Schedule } from "../../methods/schedules/index.js";

/** What a row of the paper's tables ran, as far as it is known. All runs have 50 steps but those of "steps". */
export type Run =
  /** Fewer steps of the sampler, all computed. */
  | { readonly kind: "steps"; readonly steps: number }
  /** TaylorSeer's schedule with any forecast: TaylorSeer, FEMO. What forecasting costs was not counted. */
  | { readonly kind: "forecast"; readonly interval: number }
  | { readonly kind: "fora"; readonly interval: number }
  | { readonly kind: "deltaDit"; readonly interval: number }
  /** Token-wise methods; `ratio` is the share of tokens computed anew. */
  | { readonly kind: "toca" | "duca"; readonly interval: number; readonly ratio: number }
  /** So many computed steps came out of its threshold. */
  | { readonly kind: "teaCache"; readonly computed: number }
  | { readonly kind: "unknown"; readonly reason: string };

/** The cost of an image, or why it cannot be told. */
export type RunCost =
  | { readonly flops: number /** Steps that computed all blocks. */; readonly fullSteps: number }
  | { readonly reason: string };

/** What runs of a model cost. */
export interface ModelCosts {
  /** What counts as how much, in words. */
  readonly counting: string;
  /** An image with every step computed. */
  readonly uncached: number;
  costOf(run: Run): RunCost;
}

/** The first `numSteps` steps, those that a schedule makes full counted. */
export const countFull = (schedule: Schedule, numSteps: number): number =>
  Array.from({ length: numSteps }, (_, step) => schedule.isFull(step)).filter(Boolean).length;
