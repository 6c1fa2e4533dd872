import { z } from "zod";
import { conversions } from "./conversions.js";
import { type Leap, type Level, noiseRatio } from "./levels.js";
import { demandOf, oneOf } from "./options.js";
import type { Prediction } from "./prediction.js";
import { checkedStep, type Sampler } from "./sampler.js";

/** The two second-order formulas: they differ in the weight of the change of x₀. */
export type SolverType = (typeof solverTypes)[number];
export const solverTypes = ["midpoint", "heun"] as const;

/** How DPM-Solver++ goes from level to level, as diffusers' `DPMSolverMultistepScheduler` has it in camelCase. */
export interface DpmStepsConfig {
  /** 1 goes straight on, as DDIM and Euler do; 2 goes by the x₀ of the step before as well. Default 2. */
  readonly solverOrder?: 1 | 2;
  /** Default "midpoint". */
  readonly solverType?: SolverType;
  /** Below 15 steps the last one is of first order, for stability. Default true. */
  readonly lowerOrderFinal?: boolean;
  /** The last step is of first order, always. It is so where it lands on no noise. Default false. */
  readonly eulerAtFinal?: boolean;
}

export const dpmStepsDefaults: Required<DpmStepsConfig> = {
  solverOrder: 2,
  solverType: "midpoint",
  lowerOrderFinal: true,
  eulerAtFinal: false,
};

/** The keys of a scheduler's config that say so. */
export const dpmStepsKeys = {
  solver_order: z.literal([1, 2]),
  solver_type: z.enum(solverTypes),
  lower_order_final: z.boolean(),
  euler_at_final: z.boolean(),
};

/** What a config of DPM-Solver++ must say, as far as it says it. */
export const dpmStepsFixed = {
  thresholding: z.literal(false),
  algorithm_type: z.literal("dpmsolver++"),
  lambda_min_clipped: z.literal(Number.NEGATIVE_INFINITY),
  use_exponential_sigmas: z.literal(false),
  use_beta_sigmas: z.literal(false),
};

/** @throws FemoError E_OPTION if a value is outside its range */
export function checkDpmSteps(options: Required<DpmStepsConfig>): void {
  const demand = demandOf(options);
  demand([1, 2].includes(options.solverOrder), "solverOrder", "1 or 2");
  demand(solverTypes.includes(options.solverType), "solverType", oneOf(solverTypes));
}

/** Where the solver stops. */
export interface Stops {
  /** Fed to the model.  [n] */
  readonly timesteps: readonly number[];
  /** There and at the end, less and less noise.  [n + 1] */
  readonly levels: readonly Level[];
}

/** x′ = x·`x` + x₀·`x0` + (x₀ − x₀ of the step before)·`change`. */
interface Weights {
  readonly x: number;
  readonly x0: number;
  readonly change: number;
}

/**
 * DPM-Solver++(2M), deterministic (arXiv 2211.01095, algorithm 2), for any x = signal·x₀ + noise·ε. In
 * λ = log(signal/noise), with h = λ′ − λ the step and h₋ the one before, order 2 of type "midpoint" is
 *
 *     x ← (noise′/noise)·x + signal′·(1 − e^(−h))·(x₀ + ½·(h/h₋)·(x₀ − x₀₋));
 *
 * "heun" has 1 − (1 − e^(−h))/h in place of ½·(1 − e^(−h)). Order 1 leaves out the change of x₀; so does the first step, the
 * one after a start of mere noise, where h₋ is infinite, and the last one where the config says so.
 *
 * @param predictions what the model gives at each stop.  [n]
 */
export function dpmSteps(
  options: Required<DpmStepsConfig>,
  { timesteps, levels }: Stops,
  predictions: readonly Prediction[],
): Omit<Sampler, "spacing" | "notes"> {
  const steps = weightsOf(options, levels).map((weights, i) => ({ ...weights, predict: predictions[i] as Prediction }));
  return {
    name: "dpm-solver++",
    timesteps,
    leaps: timesteps.map((_, i): Leap => ({ from: levels[i] as Level, to: levels[i + 1] as Level })),
    initNoiseSigma: 1,
    inputScale: () => 1,
    position: (i) => timesteps.length - 1 - i,
    step(i, state, modelOutput) {
      const { predict, x: xScale, x0: x0Scale, change } = checkedStep(steps, i, state, modelOutput);
      const { latent, previous } = state;
      const next = new Float32Array(latent.length);
      const denoised = new Float32Array(latent.length);
      for (let k = 0; k < next.length; k++) {
        const x = latent[k] as number;
        const x0 = predict.x0FromX * x + predict.x0FromM * (modelOutput[k] as number);
        denoised[k] = x0;
        next[k] = xScale * x + x0Scale * x0 + (previous ? change * (x0 - (previous[k] as number)) : 0);
      }
      return options.solverOrder === 1 ? { latent: next } : { latent: next, previous: denoised };
    },
    ...conversions(predictions),
  };
}

/** For each step.  [n] */
function weightsOf(options: Required<DpmStepsConfig>, levels: readonly Level[]): Weights[] {
  const { solverOrder, solverType, lowerOrderFinal, eulerAtFinal } = options;
  const n = levels.length - 1;
  const firstOrderFinal = levels[n]?.noise === 0 || eulerAtFinal || (lowerOrderFinal && n < 15);
  return levels.slice(0, -1).map((now, i) => {
    const next = levels[i + 1] as Level;
    const before = levels[i - 1];
    const h = next.lambda - now.lambda;
    const gain = -Math.expm1(-h); // 1 − e^(−h)
    const ofChange = solverType === "midpoint" ? gain / 2 : h === 0 ? 0 : 1 - gain / h;
    const secondOrder = solverOrder === 2 && before !== undefined && !(i === n - 1 && firstOrderFinal);
    return {
      x: noiseRatio(now, next),
      x0: next.signal * gain,
      change: secondOrder ? next.signal * ofChange * (h / (now.lambda - before.lambda)) : 0,
    };
  });
}
