import { FemoError } from "../errors.js";
import { demandOf, oneOf } from "./options.js";

/**
 * How the sampled timesteps are chosen among 0 … T − 1, for n steps.
 *
 * "leading", "trailing" and "linspace" are diffusers' (table 2 of arXiv 2305.08891). "dit" is how the DiT repository
 * respaces to "n": t_i = round(i·(T − 1)/(n − 1)) as in "linspace", but the step from t_i lands on t_(i−1), the
 * previous element, and the last one on ᾱ = 1, where diffusers' DDIM subtracts ⌊T/n⌋ from t and may land beside its own
 * list. (Its respacing to "ddimn" is "leading" without offset, where n divides T.)
 *
 * "leading" goes in whole strides of ⌊T/n⌋ up from 0, so that it may begin far from pure noise: see {@link startNotes}.
 */
export type StrideSpacing = (typeof strideSpacings)[number];
export const strideSpacings = ["leading", "trailing", "linspace", "dit"] as const;

/**
 * Or how the noise levels are, of which the timesteps are the nearest: "lambda" is even in λ = log(√ᾱ/√(1 − ᾱ)), half the
 * logarithm of the signal-to-noise ratio.
 */
export type TimestepSpacing = StrideSpacing | "lambda";
/** All of them. */
export const timestepSpacings = [...strideSpacings, "lambda"] as const;

/** What {@link sampledTimesteps} goes by. */
export interface Spacing {
  readonly numInferenceSteps: number;
  readonly numTrainTimesteps: number;
  readonly timestepSpacing: TimestepSpacing;
  readonly stepsOffset: number;
}

/**
 * The timesteps fed to the model, noisiest first.  [n]
 *
 * "trailing" gives exactly n (in diffusers, for some n such as 61, rounding appends a timestep of −1).
 *
 * @param spare "leading" and "linspace" space so many timesteps more than n, and leave out the cleanest
 * @throws FemoError E_OPTION if the offset leads past timestep T − 1, or if "leading" spaces more than T/2 timesteps and
 *   fewer than T: in strides of 1 it would begin in the middle of the chain
 */
export function sampledTimesteps(
  spacing: Spacing & { readonly timestepSpacing: StrideSpacing },
  spare: 0 | 1 = 0,
): number[] {
  const { numInferenceSteps: n, numTrainTimesteps: T, timestepSpacing, stepsOffset } = spacing;
  switch (timestepSpacing) {
    case "leading": {
      if (n + spare > T / 2 && n + spare < T) {
        throw new FemoError(
          "E_OPTION",
          `numInferenceSteps: expected at most ${Math.floor(T / 2) - spare}, or ${T - spare}, with "leading" spacing, found ${n}: ` +
            `they would begin at timestep ${n + spare - 1 + stepsOffset} of ${T}, far from pure noise. Use another timestepSpacing, such as "dit".`,
        );
      }
      const timesteps = range(n, (i) => (n + spare - 1 - i) * Math.floor(T / (n + spare)) + stepsOffset);
      if ((timesteps[0] as number) >= T) {
        throw new FemoError(
          "E_OPTION",
          `stepsOffset: ${n} steps with offset ${stepsOffset} would begin at timestep ${timesteps[0]}, but the model knows ` +
            `0 to ${T - 1}: use fewer steps or offset 0.`,
        );
      }
      return timesteps;
    }
    case "trailing": {
      // NumPy's arange adds multiples of the difference of its first two elements, not of the step itself.
      const difference = T - T / n - T;
      return range(n, (i) => roundHalfEven(T + i * difference) - 1);
    }
    case "linspace":
      return linspace(0, T - 1, n + spare)
        .reverse()
        .slice(0, n)
        .map(roundHalfEven);
    case "dit": {
      // The repository sums the stride up, so that halves may round otherwise than i·stride would.
      const stride = n === 1 ? 1 : (T - 1) / (n - 1);
      let t = 0;
      const ascending = range(n, () => {
        const rounded = roundHalfEven(t);
        t += stride;
        return rounded;
      });
      return ascending.reverse();
    }
  }
}

/** Share of T by which a list may begin late without a word. */
const LATE = 0.1;

/** A sentence if "leading" strides are so much shorter than T/n that the list begins far from pure noise. */
export function startNotes({ numTrainTimesteps: T, timestepSpacing, numInferenceSteps: n }: Spacing, spare: 0 | 1 = 0) {
  const late = (n + spare - 1) * (T / (n + spare) - Math.floor(T / (n + spare)));
  if (timestepSpacing !== "leading" || late <= LATE * T) return [];
  return [
    `"leading" spacing of ${n} steps begins ${Math.round(late)} timesteps late, as in diffusers: the model finds less ` +
      'signal in the noise than it was trained for. "dit" and "trailing" spacing begin at the end of the chain.',
  ];
}

/**
 * @param allowed the spacings that the sampler has
 * @throws FemoError E_OPTION if a value is outside its range
 */
export function checkSpacing<S extends TimestepSpacing>(
  spacing: Spacing,
  allowed: readonly S[],
): asserts spacing is Spacing & { readonly timestepSpacing: S } {
  const { numInferenceSteps: n, numTrainTimesteps: T, timestepSpacing, stepsOffset } = spacing;
  const demand = demandOf(spacing);
  const others = timestepSpacings.includes(timestepSpacing) ? ` ("${timestepSpacing}" is of dpm-solver++)` : "";
  demand(
    allowed.some((one) => one === timestepSpacing),
    "timestepSpacing",
    `${oneOf(allowed)}${others}`,
  );
  demand(Number.isInteger(n) && n >= 1 && n <= T, "numInferenceSteps", `an integer from 1 to ${T} (numTrainTimesteps)`);
  demand(Number.isInteger(stepsOffset) && stepsOffset >= 0, "stepsOffset", "a non-negative integer");
}

/** What numTrainTimesteps can be, a hundred times what models have: schedules of all of them are made. */
export const MOST_TRAIN_TIMESTEPS = 100_000;
export const isTrainTimesteps = (T: number): boolean => Number.isInteger(T) && T >= 1 && T <= MOST_TRAIN_TIMESTEPS;

const range = (length: number, at: (i: number) => number): number[] => Array.from({ length }, (_, i) => at(i));

/** `count` evenly spaced values, both ends included; only the start when count is 1. */
export function linspace(start: number, end: number, count: number): number[] {
  const step = count === 1 ? 0 : (end - start) / (count - 1);
  return range(count, (i) => (i > 0 && i === count - 1 ? end : start + i * step));
}

/** Nearest integer, ties to the even one, as in NumPy and Python. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const fraction = value - floor;
  if (fraction !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
