import * as z from "zod/mini";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { dpmSolverOptions } from "./dpm-solver.js";
import { type DpmStepsConfig, dpmStepsDefaults, dpmStepsKeys, highestOrder, type Stops } from "./dpm-steps.js";
import { type Level, leapsThrough, straightWeights } from "./levels.js";
import { type LinearStep, linearSampler } from "./linear-steps.js";
import { demandOf } from "./options.js";
import { type Prediction, prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import { oneConversion } from "./sigmas.js";
import { type SolverStopsConfig, solverStops, solverStopsDefaults, solverStopsKeys } from "./solver-stops.js";
import { timestepSpacings } from "./timesteps.js";

/** How DEIS goes from level to level, as diffusers' `DEISMultistepScheduler` has it in camelCase. */
export interface DeisStepsConfig extends Pick<DpmStepsConfig, "lowerOrderFinal"> {
  /** 1 goes straight on, as DDIM and Euler do; 2 and 3 go by ε of one and of two steps before as well. Default 2. */
  readonly solverOrder?: 1 | 2 | 3;
}

export const deisStepsDefaults: Required<DeisStepsConfig> = {
  solverOrder: dpmStepsDefaults.solverOrder,
  lowerOrderFinal: dpmStepsDefaults.lowerOrderFinal,
};

/** The keys of a scheduler's config that say so. */
export const deisStepsKeys = {
  solver_order: dpmStepsKeys.solver_order,
  lower_order_final: dpmStepsKeys.lower_order_final,
};

/** What a config of DEIS must say, as far as it says it: names that other solvers left there are read as its own, as there. */
export const deisStepsFixed = {
  thresholding: z.literal(false),
  algorithm_type: z.enum(["deis", "dpmsolver", "dpmsolver++"]),
  solver_type: z.enum(["logrho", "midpoint", "heun", "bh1", "bh2"]),
};

/** @throws FemoError E_OPTION if a value is outside its range */
export const checkDeisSteps = (options: Required<DeisStepsConfig>): void =>
  demandOf(options)([1, 2, 3].includes(options.solverOrder), "solverOrder", "1, 2 or 3");

/**
 * DEIS, multistep, by polynomials in log ρ (arXiv 2204.13902, diffusers' solver type "logrho"), for any
 * x = signal·x₀ + noise·ε. With ρ = noise/signal, x/signal changes by ε over ρ, so that
 *
 *     x′/signal′ ← x/signal + ∫ P(log ρ) dρ   from ρ to ρ′,
 *
 * where P goes through ε of this step and of up to two before. Order 1 goes straight on; so do the first step, and the last one
 * where it lands on no noise or is one of fewer than 15.
 *
 * The part that goes straight on is written in the model's output: at a start of mere noise ε is x, and says nothing of it. Nor
 * can a polynomial in log ρ, which is infinite there, go through that ε.
 *
 * @param predictions what the model gives at each stop.  [n]
 */
export function deisSteps(
  options: Required<DeisStepsConfig>,
  { timesteps, levels }: Stops,
  predictions: readonly Prediction[],
): Omit<Sampler, "spacing" | "notes"> {
  const leaps = leapsThrough(levels);
  return linearSampler({
    name: "deis",
    timesteps,
    leaps,
    predictions,
    steps: leaps.map((leap, i) => {
      const { x, x0 } = straightWeights(leap);
      const { x0FromX, x0FromM } = predictions[i] as Prediction;
      const straight = { x: x + x0 * x0FromX, feature: 0, output: x0 * x0FromM };
      const most = highestOrder({ ...options, eulerAtFinal: false }, levels, i);
      return Array.from(
        { length: Math.min(options.solverOrder, i + 1) },
        (_, known): LinearStep => ({ ...straight, changes: changesOf(Math.min(known + 1, most), levels, i) }),
      );
    }),
    of: "eps",
  });
}

/** Weights of ε − ε of one and of two steps before, in a step of such an order.  [order − 1] */
function changesOf(order: number, levels: readonly Level[], i: number): number[] {
  const [now, next] = levels.slice(i, i + 2) as [Level, Level];
  const before = levels.slice(Math.max(0, i + 1 - order), i).reverse();
  const finite = before.filter(({ signal }) => signal > 0);
  if (finite.length === 0) return [];
  // u = log ρ − log ρ of now: where ε is known, and ∫ u dρ and ∫ u² dρ to where the step lands
  const known = finite.map(({ lambda }) => now.lambda - lambda);
  const end = now.lambda - next.lambda;
  const rho = now.noise / now.signal;
  const first = rho * ((end - 1) * Math.exp(end) + 1);
  const second = rho * ((end ** 2 - 2 * end + 2) * Math.exp(end) - 2);
  return known.map((u, k) => {
    const other = known[1 - k];
    const weight = other === undefined ? first / u : (second - other * first) / (u * (u - other));
    return -next.signal * weight;
  });
}

/** diffusers' `DEISMultistepScheduler` config of a diffusion in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface DeisConfig extends SolverStopsConfig, DeisStepsConfig {
  /** Model evaluations n, 1 … numTrainTimesteps; for "leading" and "linspace" spacing one less. */
  readonly numInferenceSteps: number;
}

export const deisDefaults: Required<Omit<DeisConfig, "numInferenceSteps">> = {
  ...solverStopsDefaults,
  finalSigmasType: "sigma_min",
  ...deisStepsDefaults,
};

/**
 * DEIS for a diffusion, see {@link deisSteps}; of order 1 it is DDIM.
 *
 * Reproduces diffusers' `DEISMultistepScheduler`, except that β, ᾱ and all coefficients are float64 (there float32). Spacing
 * "lambda" and landing on no noise, `finalSigmasType` "zero", are femo's own.
 *
 * @throws FemoError E_OPTION as {@link solverStops}
 */
export function deis(config: DeisConfig): Sampler {
  const options = { ...deisDefaults, ...config };
  checkDeisSteps(options);
  const { spacing, notes, ...stops } = solverStops(options);
  const predictions = stops.timesteps.map((t, i) => prediction(options.predictionType, stops.levels[i] as Level, t));
  return { ...deisSteps(options, stops, predictions), spacing, notes };
}

const { final_sigmas_type: _, ...stopsKeys } = solverStopsKeys;

/** DEIS. */
export const deisSampler: SamplerDefinition<"deis", Omit<DeisConfig, "numInferenceSteps">> = {
  name: "deis",
  title: "DEIS",
  process: "diffusion",
  classes: ["DEISMultistepScheduler"],
  keys: { ...sharedKeys, ...stopsKeys, ...deisStepsKeys },
  fixed: { ...deisStepsFixed, use_flow_sigmas: z.literal(false) },
  fromKeys: oneConversion,
  spacings: timestepSpacings,
  defaults: deisDefaults,
  create: (settings, chosen) => deis(dpmSolverOptions(settings, chosen)),
};
