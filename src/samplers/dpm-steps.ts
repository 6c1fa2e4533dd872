import * as z from "zod/mini";
import { type Level, leapsThrough, noiseRatio } from "./levels.js";
import { type LinearStep, linearSampler } from "./linear-steps.js";
import { demandOf, oneOf } from "./options.js";
import type { Prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";

/** The two second-order formulas: they differ in the weight of the change of x₀. */
export type SolverType = (typeof solverTypes)[number];
export const solverTypes = ["midpoint", "heun"] as const;

/** How DPM-Solver++ goes from level to level, as diffusers' `DPMSolverMultistepScheduler` has it in camelCase. */
export interface DpmStepsConfig {
  /** 1 goes straight on, as DDIM and Euler do; 2 and 3 go by x₀ of one and of two steps before as well. Default 2. */
  readonly solverOrder?: 1 | 2 | 3;
  /** Of order 2. Default "midpoint". */
  readonly solverType?: SolverType;
  /** Below 15 steps the last one is of first order, and the one before of second at most, for stability. Default true. */
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
  solver_order: z.literal([1, 2, 3]),
  solver_type: z.enum(solverTypes),
  lower_order_final: z.boolean(),
  euler_at_final: z.boolean(),
};

/** What a config of DPM-Solver++ must say, as far as it says it. */
export const dpmStepsFixed = {
  thresholding: z.literal(false),
  algorithm_type: z.literal("dpmsolver++"),
  lambda_min_clipped: z.literal(Number.NEGATIVE_INFINITY),
};

/** @throws FemoError E_OPTION if a value is outside its range */
export function checkDpmSteps(options: Required<DpmStepsConfig>): void {
  const demand = demandOf(options);
  demand([1, 2, 3].includes(options.solverOrder), "solverOrder", "1, 2 or 3");
  demand(solverTypes.includes(options.solverType), "solverType", oneOf(solverTypes));
}

/** Where the solver stops. */
export interface Stops {
  /** Fed to the model.  [n] */
  readonly timesteps: readonly number[];
  /** There and at the end, less and less noise.  [n + 1] */
  readonly levels: readonly Level[];
}

/** Whether DPM-Solver++ solves the equation without noise (ODE) or the one with (SDE). */
export type DpmEquation = "ode" | "sde";

/**
 * DPM-Solver++, multistep (arXiv 2211.01095, algorithm 2), for any x = signal·x₀ + noise·ε. In λ = log(signal/noise), with
 * h = λ′ − λ the step and h₋ the one before, order 2 of type "midpoint" is
 *
 *     x ← (noise′/noise)·x + signal′·(1 − e^(−h))·(x₀ + ½·(h/h₋)·(x₀ − x₀₋));
 *
 * "heun" has 1 − (1 − e^(−h))/h in place of ½·(1 − e^(−h)). Order 1 leaves out the change of x₀; so does the first step, the
 * one after a start of mere noise, where h₋ is infinite, and the last one where the config says so. Order 3 also goes by how
 * the change changes; its second step is of order 2.
 *
 * The SDE has 2h in place of h within the brackets, e^(−h) more before x, and noise′·√(1 − e^(−2h)) of fresh noise.
 *
 * @param predictions what the model gives at each stop.  [n]
 */
export function dpmSteps(
  options: Required<DpmStepsConfig>,
  { timesteps, levels }: Stops,
  predictions: readonly Prediction[],
  equation: DpmEquation = "ode",
): Omit<Sampler, "spacing" | "notes"> {
  return linearSampler({
    name: equation === "ode" ? "dpm-solver++" : "dpm-solver++-sde",
    timesteps,
    leaps: leapsThrough(levels),
    predictions,
    steps: timesteps.map((_, i) => stepsAt(options, levels, i, equation)),
  });
}

/** Step i by how many x₀ before it are known. */
function stepsAt(
  options: Required<DpmStepsConfig>,
  levels: readonly Level[],
  i: number,
  equation: DpmEquation,
): LinearStep[] {
  const [now, next] = levels.slice(i, i + 2) as [Level, Level];
  const h = next.lambda - now.lambda;
  const sde = equation === "sde";
  const length = sde ? 2 * h : h;
  const gain = -Math.expm1(-length); // 1 − e^(−h)
  const straight = {
    x: sde ? noiseRatio(now, next) * Math.exp(-h) : noiseRatio(now, next),
    feature: next.signal * gain,
    ...(sde && { noise: next.noise * Math.sqrt(Math.max(0, gain)) }),
  };
  const count = Math.min(options.solverOrder, i + 1);
  const most = highestOrder(options, levels, i);
  return Array.from({ length: count }, (_, known) => ({
    ...straight,
    changes: changesOf(Math.min(known + 1, most), options.solverType, levels, i, length),
  }));
}

/** That a config allows step i. */
export function highestOrder(
  { solverOrder, lowerOrderFinal, eulerAtFinal }: Required<Omit<DpmStepsConfig, "solverType">>,
  levels: readonly Level[],
  i: number,
): number {
  const n = levels.length - 1;
  const few = lowerOrderFinal && n < 15;
  if (i === n - 1 && (levels[n]?.noise === 0 || eulerAtFinal || few)) return 1;
  return i === n - 2 && few ? Math.min(2, solverOrder) : solverOrder;
}

/**
 * Weights of x₀ − x₀ of one and of two steps before, in a step of such an order.  [order − 1]
 * @param length h, or 2h of the SDE
 */
function changesOf(order: number, type: SolverType, levels: readonly Level[], i: number, length: number): number[] {
  if (order === 1) return [];
  const [before, now, next] = levels.slice(i - 1, i + 2) as [Level, Level, Level];
  const h = next.lambda - now.lambda;
  const h0 = now.lambda - before.lambda;
  const gain = -Math.expm1(-length);
  const heun = h === 0 ? 0 : 1 - gain / length;
  if (order === 2) {
    const ofChange = type === "midpoint" ? gain / 2 : heun;
    return [next.signal * ofChange * (h / h0)];
  }
  const h1 = before.lambda - (levels[i - 2] as Level).lambda;
  const curve = h === 0 ? 0 : (gain - h) / h ** 2 + 0.5;
  // D1 = a·c₁ + w·(D1₀ − D1₁) and D2 = v·(D1₀ − D1₁), with D1₀ − D1₁ = (a + b)·c₁ − b·c₂
  const [a, b] = [h / h0, h / h1];
  const [w, v] = [h0 / (h0 + h1), h / (h0 + h1)];
  const bend = heun * w + curve * v;
  return [next.signal * (heun * a + bend * (a + b)), -next.signal * bend * b];
}
