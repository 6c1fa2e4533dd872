import type { CacheOptions } from "../../methods/index.js";

/** What a row of the paper's tables ran. */
export interface Run {
  readonly cache: CacheOptions;
  readonly numSteps: number;
  /** Full steps, as printed, of a method whose steps depend on the images; the others forecast. */
  readonly fullSteps?: number;
  /** Attention was kept before its projections, which then run at every step: femo keeps it behind them. */
  readonly projects?: boolean;
}

/** It cannot be told, and why. */
export interface Unknown {
  readonly reason: string;
}

/** The cost of an image. */
export interface RunCost {
  readonly flops: number;
  /** Steps that computed all blocks. */
  readonly fullSteps: number;
}

/** What runs of a model cost. */
export interface ModelCosts {
  /** What counts as how much, in words. */
  readonly counting: string;
  costOf(run: Run): RunCost;
}
