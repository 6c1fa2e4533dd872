import { blend, type Forecaster, type FullStep, inner, rowTimes, taylorTerm, unit, zeros } from "./forecaster.js";

/**
 * What M^i is before its first update: nothing; its first difference; or, for M^1, the feature itself, as the paper's
 * text has it ("assign M^0 to M^1").
 */
export const femoSeeds = ["zero", "first-difference", "feature"] as const;
export type FemoSeed = (typeof femoSeeds)[number];

/** The exponent n of eq. 10's 1 - beta^n: updates of that order, steps they span, or no correction at all. */
export const biasCorrections = ["updates", "steps", "off"] as const;
export type BiasCorrection = (typeof biasCorrections)[number];

export interface FemoOptions {
  /** m, 1 to 4. */
  readonly order: number;
  /** Momentum coefficient, -1 < beta < 1: one for all, or one for each image in turn. */
  readonly beta: number | readonly number[];
  readonly seed?: FemoSeed;
  /** Has no effect with the seed "first-difference", which has no bias. */
  readonly biasCorrection?: BiasCorrection;
}

export interface FemoMemory {
  readonly beta: number;
  /** Raw differences held, D0 included. */
  readonly levels: number;
  readonly last: number;
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
 * S = [D0 .. D(m-1), M1 .. Mm]: order 1 keeps two tensors, as TaylorSeer does. With beta = 0 it is TaylorSeer.
 */
export function femo({ order, beta, seed = "zero", biasCorrection = "updates" }: FemoOptions): Forecaster<FemoMemory> {
  const size = 2 * order;
  /** Index of M^i in the state. */
  const m = (i: number): number => order + i - 1;

  return {
    stateSize: size,
    start: (image) => ({
      beta: typeof beta === "number" ? beta : (beta[image % beta.length] as number),
      levels: 0,
      last: 0,
      updates: zeros(order),
      span: zeros(order),
    }),
    update(memory, { position, differences }) {
      const [newest, delta] = [unit(size + 1, size), position - memory.last];
      const raw = [newest]; // D'0 = F, then D'i = (D'(i-1) - D(i-1)) / delta
      for (let i = 1; differences && i <= Math.min(order, memory.levels); i++) {
        raw.push(blend(1 / delta, raw[i - 1] as number[], -1 / delta, unit(size + 1, i - 1)));
      }
      const rows = Array.from({ length: order }, (_, i) => raw[i] ?? zeros(size + 1));
      const [updates, span] = [[...memory.updates], [...memory.span]];
      for (let i = 1; i <= order; i++) {
        const [old, difference] = [unit(size + 1, m(i)), raw[i]];
        if (!difference) {
          rows.push(seed === "feature" && i === 1 && memory.levels === 0 ? newest : old);
          continue;
        }
        const first = memory.updates[i - 1] === 0;
        rows.push(
          seed === "first-difference" && first ? difference : blend(memory.beta, old, 1 - memory.beta, difference),
        );
        updates[i - 1] = (updates[i - 1] as number) + 1;
        span[i - 1] = (span[i - 1] as number) + Math.abs(delta);
      }
      const levels = Math.min(raw.length, order);
      return { memory: { ...memory, levels, last: position, updates, span }, rows };
    },
    combine({ beta, levels, last, updates, span }, position) {
      if (levels === 0) return undefined;
      const weights = unit(size, 0);
      for (let i = 1; i <= order; i++) {
        const n = updates[i - 1] as number;
        if (n === 0) continue; // M^i holds its seed at most: there is no derivative yet
        const exponent = biasCorrection === "steps" ? (span[i - 1] as number) : n;
        const corrected = biasCorrection !== "off" && seed !== "first-difference";
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

interface AdaptedMemory {
  readonly femo: FemoMemory;
  readonly initialBeta: number;
  /** The full step whose feature is kept as it is, until the beta it decides is known. */
  readonly pending: FullStep | undefined;
}

/**
 * Adapted-FEMO: at each full step beta <- clip(beta + gamma sign(|F| - |F^|), beta0 - delta, beta0 + delta), then the
 * momentum is updated with the new beta.
 *
 * The sign is known only after the step has run, so the newest feature waits: S = [FEMO's state; F], and each update
 * first brings in the feature before. Both norms follow from the Gram matrix of [S; F].
 */
export function adaptedFemo(options: AdaptedFemoOptions): Forecaster<AdaptedMemory> {
  const { gamma, delta, betaPer = "feature-row" } = options;
  const inside = femo(options);
  const size = inside.stateSize + 1;

  /** FEMO's memory after the pending feature, and its state's rows over [S]. */
  const settle = ({ femo: memory, pending }: AdaptedMemory) =>
    pending
      ? inside.update(memory, pending)
      : { memory, rows: Array.from({ length: inside.stateSize }, () => zeros(size)) };

  return {
    stateSize: size,
    memoryPer: {
      feature: betaPer === "feature" || betaPer === "feature-row",
      row: betaPer === "row" || betaPer === "feature-row",
    },
    start(image) {
      const memory = inside.start(image);
      return { femo: memory, initialBeta: memory.beta, pending: undefined };
    },
    update(memory, step) {
      const settled = settle(memory);
      const rows = [...settled.rows.map((row) => [...row, 0]), unit(size + 1, size)];
      return { memory: { ...memory, femo: settled.memory, pending: step }, rows };
    },
    combine(memory, position) {
      const settled = settle(memory);
      const weights = inside.combine(settled.memory, position);
      return weights && rowTimes(weights, settled.rows);
    },
    adapt(memory, gram, prediction) {
      const truth2 = (gram.at(-1) as number[]).at(-1) as number;
      const sign = Math.sign(truth2 - inner(gram, prediction, prediction));
      const moved = memory.femo.beta + gamma * sign;
      const beta = Math.min(Math.max(moved, memory.initialBeta - delta), memory.initialBeta + delta);
      return { ...memory, femo: { ...memory.femo, beta } };
    },
    beta: ({ femo: { beta } }) => beta,
  };
}
