import { z } from "zod";
import { FemoError } from "../errors.js";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import {
  checkDpmSteps,
  type DpmStepsConfig,
  dpmSteps,
  dpmStepsDefaults,
  dpmStepsFixed,
  dpmStepsKeys,
  type Stops,
} from "./dpm-steps.js";
import { diffusionLevel, type Level } from "./levels.js";
import { demandOf, oneOf } from "./options.js";
import { prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
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

/**
 * diffusers' `DPMSolverMultistepScheduler` config in camelCase, of algorithm "dpmsolver++", plus the number of steps.
 * Defaults are diffusers' too.
 */
export interface DpmSolverConfig extends TrainingChainConfig, DpmStepsConfig {
  /** Model evaluations n, 1 … numTrainTimesteps; for "leading" and "linspace" spacing one less. */
  readonly numInferenceSteps: number;
  /** Default "zero". */
  readonly finalSigmasType?: FinalSigmasType;
  /** Noise levels of arXiv 2206.00364, eq. 5 with ρ = 7, in place of timestepSpacing. Default false. */
  readonly useKarrasSigmas?: boolean;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** Default "linspace". */
  readonly timestepSpacing?: TimestepSpacing;
}

/** A {@link DpmSolverConfig} before the number of steps is chosen, nothing left out. */
export type DpmSolverSchedulerConfig = Required<Omit<DpmSolverConfig, "numInferenceSteps">>;

/** The defaults of diffusers' `DPMSolverMultistepScheduler`. */
export const dpmSolverDefaults: DpmSolverSchedulerConfig = {
  ...trainingChainDefaults,
  ...dpmStepsDefaults,
  finalSigmasType: "zero",
  useKarrasSigmas: false,
  stepsOffset: 0,
  timestepSpacing: "linspace",
};

/**
 * DPM-Solver++(2M) for a diffusion, see {@link dpmSteps}; of order 1 it is DDIM.
 *
 * Reproduces diffusers' `DPMSolverMultistepScheduler`, which never clips x₀, except that β, ᾱ and all coefficients are
 * float64 (there float32), and that timesteps of Karras' levels and of spacing "lambda", its `use_lu_lambdas`, are
 * rounded for every β schedule (there cut off for the cosine one). Those levels are kept as they are: the model is told
 * the nearest timestep, which may come twice.
 *
 * @throws FemoError E_OPTION if a value is outside its range, if an offset leads past timestep T − 1, if there are so many
 *   steps that a noise level comes twice, or if "leading" spacing of more than T/2 − 1 steps would begin late
 */
export function dpmSolver(config: DpmSolverConfig): Sampler {
  const options = { ...dpmSolverDefaults, ...config };
  check(options);
  const stops = stopsOf(options);
  const { timesteps, levels } = stops;
  return {
    ...dpmSteps(
      options,
      stops,
      timesteps.map((t, i) => prediction(options.predictionType, levels[i] as Level, t)),
    ),
    spacing: options.useKarrasSigmas ? "karras" : options.timestepSpacing,
    notes: options.useKarrasSigmas ? [] : startNotes(options, 1),
  };
}

function stopsOf(options: Required<DpmSolverConfig>): Stops {
  const alphaBar = cumulativeAlphas(options); // [T]
  // Without any signal λ would be −∞. diffusers' value, the least of float16.
  if (options.rescaleBetasZeroSnr) alphaBar[alphaBar.length - 1] = 2 ** -24;
  const final = options.finalSigmasType === "zero" ? 1 : (alphaBar[0] as number);
  const { numInferenceSteps: n, timestepSpacing, useKarrasSigmas } = options;
  if (useKarrasSigmas || timestepSpacing === "lambda") {
    const levels = Array.from(alphaBar, (a) => Math.sqrt((1 - a) / a));
    const sigmas = useKarrasSigmas ? karrasSigmas(levels, n) : sigmasEvenInLambda(levels, n);
    return {
      timesteps: sigmas.map((sigma) => nearestTimestep(levels, sigma)),
      levels: [...sigmas.map((sigma) => 1 / (1 + sigma ** 2)), final].map(diffusionLevel),
    };
  }
  // diffusers' solver has no use for timestep 0, which its "leading" and "linspace" lists end with.
  const timesteps = sampledTimesteps({ ...options, timestepSpacing }, 1);
  return { timesteps, levels: [...timesteps.map((t) => alphaBar[t] as number), final].map(diffusionLevel) };
}

/** From the greatest level to the least, even in the seventh root.  [n] */
function karrasSigmas(levels: readonly number[], n: number): number[] {
  const root = (level: number | undefined) => (level as number) ** (1 / 7);
  return linspace(root(levels.at(-1)), root(levels[0]), n).map((value) => value ** 7);
}

/** From the greatest level to the least, even in the logarithm, which is −λ.  [n] */
const sigmasEvenInLambda = (levels: readonly number[], n: number): number[] =>
  linspace(Math.log(levels.at(-1) as number), Math.log(levels[0] as number), n).map(Math.exp);

/** The timestep whose level is nearest by its logarithm; `levels` rise. */
function nearestTimestep(levels: readonly number[], sigma: number): number {
  const above = levels.findIndex((level) => level > sigma);
  if (above === 0) return 0;
  if (above === -1) return levels.length - 1;
  const [low, high] = levels.slice(above - 1, above + 1).map(Math.log) as [number, number];
  return roundHalfEven(above - 1 + (Math.log(sigma) - low) / (high - low));
}

function check(options: Required<DpmSolverConfig>): void {
  checkTrainingChain(options);
  checkSpacing(options, timestepSpacings);
  checkDpmSteps(options);
  const demand = demandOf(options);
  demand(finalSigmasTypes.includes(options.finalSigmasType), "finalSigmasType", oneOf(finalSigmasTypes));
  const { numInferenceSteps: n, numTrainTimesteps: T, timestepSpacing } = options;
  const spare = timestepSpacing === "leading" || timestepSpacing === "linspace";
  if (spare && !options.useKarrasSigmas && n >= T) {
    throw new FemoError(
      "E_OPTION",
      `numInferenceSteps: expected at most ${T - 1} for DPM-Solver++ with "${timestepSpacing}" spacing, found ${n}: ` +
        "it would come to a timestep twice.",
    );
  }
}

/** DPM-Solver++(2M). A spacing that is chosen goes before Karras' noise levels. */
export const dpmSolverSampler: SamplerDefinition<"dpm-solver++", Omit<DpmSolverConfig, "numInferenceSteps">> = {
  name: "dpm-solver++",
  title: "DPM-Solver++",
  process: "diffusion",
  classes: ["DPMSolverMultistepScheduler"],
  keys: {
    ...sharedKeys,
    ...dpmStepsKeys,
    final_sigmas_type: z.enum(finalSigmasTypes),
    use_karras_sigmas: z.boolean(),
    use_lu_lambdas: z.boolean(),
  },
  fixed: {
    ...dpmStepsFixed,
    use_flow_sigmas: z.literal(false),
  },
  fromKeys: ({ useLuLambdas, ...settings }) => (useLuLambdas ? { ...settings, timestepSpacing: "lambda" } : settings),
  spacings: timestepSpacings,
  create: (settings, chosen) =>
    dpmSolver({ ...settings, ...chosen, ...(chosen.timestepSpacing !== undefined && { useKarrasSigmas: false }) }),
};
