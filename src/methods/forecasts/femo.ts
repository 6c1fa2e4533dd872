import {
  blend,
  type Differences,
  type Forecaster,
  inner,
  nextDifferences,
  noDifferences,
  taylorTerm,
  unit,
  zeros,
} from "./forecaster.js";

/**
 * What M^i is before its first update: nothing; its first difference; or, for M^1, the feature itself, as the paper's
 * text has it ("assign M^0 to M^1").
 */
export const momentumSeeds = ["zero", "first-difference", "feature"] as const;
export type MomentumSeed = (typeof momentumSeeds)[number];

/** The exponent n of eq. 10's 1 - beta^n: updates of that order, steps they span, or no correction at all. */
export const biasCorrections = ["updates", "steps", "off"] as const;
export type BiasCorrection = (typeof biasCorrections)[number];

export interface FemoOptions {
  /** m, 1 to 4. */
  readonly order: number;
  /** Momentum coefficient, -1 < beta < 1: one for all, or one for each image in turn. */
  readonly beta: number | readonly number[];
  readonly momentumSeed?: MomentumSeed;
  /** Has no effect with the seed "first-difference", which has no bias. */
  readonly biasCorrection?: BiasCorrection;
}

export interface FemoMemory {
  readonly beta: number;
  readonly raw: Differences;
  /** Updates of each M^i, i = 1 .. m, and the steps they span. */
  readonly updates: readonly number[];
  readonly span: readonly number[];
}

/**
 * FEMO (eqs. 6-8 and 10): Taylor's forecast with each derivative replaced by its exponential moving average.
 *
 *     M^i <- beta M^i + (1 - beta) D^i                 at full steps, D^i the raw differences of TaylorSeer
 *     F^  =  F + sum of M^i / (1 - beta^n) x^i / i!     x signed steps later
 *
 * S = the last m features and M^1 .. M^m: with the new feature, the last m give D^0 .. D^m. With beta = 0 it is TaylorSeer.
 */
export function femo({
  order,
  beta,
  momentumSeed = "zero",
  biasCorrection = "updates",
}: FemoOptions): Forecaster<FemoMemory> {
  const size = 2 * order;
  /** Index of M^i in the state. */
  const m = (i: number): number => order + i - 1;
  /** Weights over [F, H0 .. H(m-1)] as weights over [S; F]. */
  const overState = ([newest, ...rest]: readonly number[]): number[] => [...rest, ...zeros(order), newest as number];

  return {
    history: order,
    recent: 1,
    averages: order,
    start: (image) => ({
      beta: typeof beta === "number" ? beta : (beta[image % beta.length] as number),
      raw: noDifferences,
      updates: zeros(order),
      span: zeros(order),
    }),
    update(memory, step) {
      const raw = nextDifferences(memory.raw, step, order);
      const rows: number[][] = [];
      const [updates, span] = [[...memory.updates], [...memory.span]];
      for (let i = 1; i <= order; i++) {
        const [old, difference] = [unit(size + 1, m(i)), raw.rows[i]];
        if (!difference) {
          const seeds = momentumSeed === "feature" && i === 1 && memory.raw.rows.length === 0;
          rows.push(seeds ? unit(size + 1, size) : old);
          continue;
        }
        const first = memory.updates[i - 1] === 0;
        rows.push(
          momentumSeed === "first-difference" && first
            ? overState(difference)
            : blend(memory.beta, old, 1 - memory.beta, overState(difference)),
        );
        updates[i - 1] = (updates[i - 1] as number) + 1;
        span[i - 1] = (span[i - 1] as number) + Math.abs(step.position - memory.raw.last);
      }
      return { memory: { ...memory, raw, updates, span }, rows };
    },
    combine({ beta, raw: { last, rows }, updates, span }, position) {
      if (rows.length === 0) return undefined;
      const weights = unit(size, 0);
      for (let i = 1; i <= order; i++) {
        const n = updates[i - 1] as number;
        if (n === 0) continue; // M^i holds its seed at most: there is no derivative yet
        // A negative beta has no power between two whole numbers.
        const exponent = biasCorrection === "steps" ? Math.round(span[i - 1] as number) : n;
        const corrected = biasCorrection !== "off" && momentumSeed !== "first-difference";
        weights[m(i)] = taylorTerm(position - last, i) / (corrected ? 1 - beta ** exponent : 1);
      }
      return weights;
    },
    beta: ({ beta }) => beta,
  };
}

/**
 * What has a beta of its own: every feature of every row, as the paper reads; every feature, the rows of an image (with
 * and without class) in common; every row, all its features in common; or every image. Norms are taken over all that
 * shares a beta.
 */
export const betaScopes = ["feature-row", "feature", "row", "image"] as const;
export type BetaScope = (typeof betaScopes)[number];

export interface AdaptedFemoOptions extends FemoOptions {
  /** Step of beta, > 0 or 0 for none. */
  readonly gamma: number;
  /** How far beta may leave where it began, >= 0. */
  readonly delta: number;
  /** Default "feature-row". */
  readonly betaPer?: BetaScope;
}

interface AdaptedMemory extends FemoMemory {
  readonly initialBeta: number;
}

/**
 * Adapted-FEMO: at each full step beta <- clip(beta + gamma sign(|F| - |F^|), beta0 - delta, beta0 + delta), then the
 * momentum is updated with the new beta. Both norms follow from the Gram matrix of [S; F].
 */
export function adaptedFemo(options: AdaptedFemoOptions): Forecaster<AdaptedMemory> {
  const { gamma, delta, betaPer = "feature-row" } = options;
  const inside = femo(options);
  return {
    ...inside,
    memoryPer: {
      feature: betaPer === "feature" || betaPer === "feature-row",
      row: betaPer === "row" || betaPer === "feature-row",
    },
    start(image) {
      const memory = inside.start(image);
      return { ...memory, initialBeta: memory.beta };
    },
    update(memory, step) {
      const { memory: next, rows } = inside.update(memory, step);
      return { memory: { ...next, initialBeta: memory.initialBeta }, rows };
    },
    adapt(memory, gram, prediction) {
      const truth2 = (gram.at(-1) as number[]).at(-1) as number;
      const sign = Math.sign(truth2 - inner(gram, prediction, prediction));
      const moved = memory.beta + gamma * sign;
      const beta = Math.min(Math.max(moved, memory.initialBeta - delta), memory.initialBeta + delta);
      return { ...memory, beta };
    },
  };
}
