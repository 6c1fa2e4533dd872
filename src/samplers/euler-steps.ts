import { type Leap, type Level, sigmaLevel } from "./levels.js";
import { type LinearStep, linearSampler } from "./linear-steps.js";
import { prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import { chainSigmas, LEAST_ALPHA_BAR, sigmaAt } from "./sigmas.js";
import {
  checkSpacing,
  linspace,
  type StrideSpacing,
  sampledTimesteps,
  startNotes,
  strideSpacings,
  type TimestepSpacing,
} from "./timesteps.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** What diffusers' two Euler schedulers for diffusions share, in camelCase, plus the number of steps. */
export interface EulerStepsConfig extends TrainingChainConfig {
  /** Model evaluations n, 1 … numTrainTimesteps. */
  readonly numInferenceSteps: number;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** All but "lambda". Default "linspace", here of fractions. */
  readonly timestepSpacing?: TimestepSpacing;
}

export const eulerStepsDefaults: Required<Omit<EulerStepsConfig, "numInferenceSteps">> = {
  ...trainingChainDefaults,
  stepsOffset: 0,
  timestepSpacing: "linspace",
};

/** Noise levels σ = noise/signal. */
export interface EulerStops {
  /** Fed to the model, to float32.  [n] */
  readonly timesteps: readonly number[];
  /** There.  [n] */
  readonly sigmas: readonly number[];
  /** Of all training timesteps, rising.  [T] */
  readonly chain: readonly number[];
}

/** @throws FemoError E_OPTION if a value is outside its range or an offset leads past timestep T − 1 */
export function eulerStops(options: Required<EulerStepsConfig>): EulerStops {
  checkTrainingChain(options);
  checkSpacing(options, strideSpacings);
  const alphaBar = cumulativeAlphas(options); // [T]
  if (options.rescaleBetasZeroSnr) alphaBar[alphaBar.length - 1] = LEAST_ALPHA_BAR;
  const chain = chainSigmas(alphaBar);
  const timesteps = timestepsOf(options, options.timestepSpacing);
  return { timesteps, sigmas: timesteps.map((t) => sigmaAt(chain, t)), chain };
}

function timestepsOf(options: Required<EulerStepsConfig>, timestepSpacing: StrideSpacing): number[] {
  const { numInferenceSteps: n, numTrainTimesteps: T } = options;
  if (timestepSpacing !== "linspace") return sampledTimesteps({ ...options, timestepSpacing });
  return linspace(0, T - 1, n)
    .reverse()
    .map(Math.fround);
}

/**
 * A sampler that goes from σ to σ in x = x₀ + σ·ε, of which the model sees x/√(σ² + 1).
 * @param final where the last step lands
 * @param stepOf the step from a level to the next
 */
export function eulerSteps(
  name: string,
  options: Required<EulerStepsConfig>,
  { timesteps, sigmas }: Pick<EulerStops, "timesteps" | "sigmas">,
  final: number,
  stepOf: (leap: Leap) => LinearStep,
): Omit<Sampler, "spacing"> {
  const levels = [...sigmas, final].map(sigmaLevel);
  const leaps = timesteps.map((_, i): Leap => ({ from: levels[i] as Level, to: levels[i + 1] as Level }));
  const first = sigmas[0] as number; // the greatest
  const isFull = options.timestepSpacing === "linspace" || options.timestepSpacing === "trailing";
  return {
    ...linearSampler({
      name,
      timesteps,
      leaps,
      predictions: leaps.map(({ from }, i) => prediction(options.predictionType, from, timesteps[i] as number)),
      steps: leaps.map((leap) => [stepOf(leap)]),
      initNoiseSigma: isFull ? first : Math.sqrt(first ** 2 + 1),
      inputScale: (i) => 1 / Math.sqrt((sigmas[i] as number) ** 2 + 1),
    }),
    notes: startNotes(options),
  };
}
