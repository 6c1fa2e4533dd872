import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import type { Stops } from "./dpm-steps.js";
import { diffusionLevel } from "./levels.js";
import { demandOf, oneOf } from "./options.js";
import {
  chainSigmas,
  checkSigmas,
  LEAST_ALPHA_BAR,
  type SigmaConfig,
  sigmaConversion,
  sigmaDefaults,
  timestepAt,
} from "./sigmas.js";
import {
  checkSpacing,
  linspace,
  roundHalfEven,
  sampledTimesteps,
  startNotes,
  type TimestepSpacing,
  timestepSpacings,
} from "./timesteps.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** Where the last step lands: on no noise, or on that of timestep 0. */
export type FinalSigmasType = (typeof finalSigmasTypes)[number];
export const finalSigmasTypes = ["zero", "sigma_min"] as const;

/** Where on a diffusion's chain a multistep solver of diffusers stops, in camelCase. */
export interface SolverStopsConfig extends TrainingChainConfig, SigmaConfig {
  /** Default "zero". */
  readonly finalSigmasType?: FinalSigmasType;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** Default "linspace". */
  readonly timestepSpacing?: TimestepSpacing;
}

export const solverStopsDefaults: Required<SolverStopsConfig> = {
  ...trainingChainDefaults,
  finalSigmasType: "zero",
  ...sigmaDefaults,
  stepsOffset: 0,
  timestepSpacing: "linspace",
};

export const solverStopsKeys = {
  final_sigmas_type: z.enum(finalSigmasTypes),
  use_karras_sigmas: z.nullable(z.boolean()),
  use_exponential_sigmas: z.nullable(z.boolean()),
  use_beta_sigmas: z.nullable(z.boolean()),
};

export type SolverStopsOptions = Required<SolverStopsConfig> & { readonly numInferenceSteps: number };

/** The stops, and how reports call them. */
export interface NamedStops extends Stops {
  readonly spacing: string;
  readonly notes: readonly string[];
}

/**
 * The stops of diffusers' DPM-Solver++ and UniPC. Levels that are spaced in σ are kept as they are, and the model is told the
 * nearest timestep, which may come twice; of exponential and beta ones the timestep below, as there, but for the first one:
 * rounding in float32 tells the model T − 1 or T − 2 there, depending on the chain, and T − 1 here.
 *
 * @throws FemoError E_OPTION if a value is outside its range, if an offset leads past timestep T − 1, if there are so many
 *   steps that a noise level comes twice, or if "leading" spacing of more than T/2 − 1 steps would begin late
 */
export function solverStops(options: SolverStopsOptions): NamedStops {
  check(options);
  const alphaBar = cumulativeAlphas(options); // [T]
  if (options.rescaleBetasZeroSnr) alphaBar[alphaBar.length - 1] = LEAST_ALPHA_BAR;
  const final = options.finalSigmasType === "zero" ? 1 : (alphaBar[0] as number);
  const { numInferenceSteps: n, timestepSpacing } = options;
  const name = sigmaConversion(options)?.name;
  if (name || timestepSpacing === "lambda") {
    const levels = chainSigmas(alphaBar);
    const sigmas = spacedSigmas(levels, options);
    const whole = name === "exponential" || name === "beta" ? wholeBelow : roundHalfEven;
    return {
      timesteps: sigmas.map((sigma) => whole(timestepAt(levels, sigma))),
      levels: [...sigmas.map((sigma) => 1 / (1 + sigma ** 2)), final].map(diffusionLevel),
      spacing: name ?? timestepSpacing,
      notes: name ? [] : startNotes(options, 1),
    };
  }
  // diffusers' solvers have no use for timestep 0, which their "leading" and "linspace" lists end with.
  const timesteps = sampledTimesteps({ ...options, timestepSpacing, numInferenceSteps: n }, 1);
  return {
    timesteps,
    levels: [...timesteps.map((t) => alphaBar[t] as number), final].map(diffusionLevel),
    spacing: timestepSpacing,
    notes: startNotes(options, 1),
  };
}

/** From the greatest level of the chain to the least.  [n] */
function spacedSigmas(levels: readonly number[], options: SolverStopsOptions): number[] {
  const { numInferenceSteps: n } = options;
  const [first, last] = [levels.at(-1) as number, levels[0] as number];
  if (options.useKarrasSigmas) return linspace(first ** (1 / 7), last ** (1 / 7), n).map((value) => value ** 7);
  const conversion = sigmaConversion(options);
  if (conversion) return conversion.between(first, last, n);
  return linspace(Math.log(first), Math.log(last), n).map(Math.exp); // even in λ
}

/** Cut off, but for what rounding takes from a whole number. */
const wholeBelow = (t: number): number => Math.floor(t + 1e-6);

function check(options: SolverStopsOptions): void {
  checkTrainingChain(options);
  checkSpacing(options, timestepSpacings);
  checkSigmas(options);
  const demand = demandOf(options);
  demand(finalSigmasTypes.includes(options.finalSigmasType), "finalSigmasType", oneOf(finalSigmasTypes));
  const { numInferenceSteps: n, numTrainTimesteps: T, timestepSpacing } = options;
  const spare = timestepSpacing === "leading" || timestepSpacing === "linspace";
  if (spare && !sigmaConversion(options) && n >= T) {
    throw new FemoError(
      "E_OPTION",
      `numInferenceSteps: expected at most ${T - 1} for this sampler with "${timestepSpacing}" spacing, found ${n}: ` +
        "it would come to a timestep twice.",
    );
  }
}
