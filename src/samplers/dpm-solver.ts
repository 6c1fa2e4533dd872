import { z } from "zod";
import { FemoError } from "../errors.js";
import { conversions } from "./conversions.js";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { demandOf, oneOf } from "./options.js";
import { type Prediction, prediction } from "./prediction.js";
import { checkedStep, type Leap, type Sampler } from "./sampler.js";
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

/** The two second-order formulas: they differ in the weight of the change of x₀. */
export type SolverType = (typeof solverTypes)[number];
export const solverTypes = ["midpoint", "heun"] as const;

/** Where the last step lands: on no noise, or on that of timestep 0. */
export type FinalSigmasType = (typeof finalSigmasTypes)[number];
export const finalSigmasTypes = ["zero", "sigma_min"] as const;

/**
 * diffusers' `DPMSolverMultistepScheduler` config in camelCase, of algorithm "dpmsolver++", plus the number of steps.
 * Defaults are diffusers' too.
 */
export interface DpmSolverConfig extends TrainingChainConfig {
  /** Model evaluations n, 1 … numTrainTimesteps; for "leading" and "linspace" spacing one less. */
  readonly numInferenceSteps: number;
  /** 1 is DDIM; 2 goes by the x₀ of the step before as well. Default 2. */
  readonly solverOrder?: 1 | 2;
  /** Default "midpoint". */
  readonly solverType?: SolverType;
  /** Below 15 steps the last one is of first order, for stability. Default true. */
  readonly lowerOrderFinal?: boolean;
  /** The last step is of first order, always. It is so with finalSigmasType "zero". Default false. */
  readonly eulerAtFinal?: boolean;
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
  solverOrder: 2,
  solverType: "midpoint",
  lowerOrderFinal: true,
  eulerAtFinal: false,
  finalSigmasType: "zero",
  useKarrasSigmas: false,
  stepsOffset: 0,
  timestepSpacing: "linspace",
};

/** Where the solver stops: timesteps fed to the model, [n], and ᾱ there and at the end, rising, [n + 1]. */
interface Stops {
  readonly timesteps: readonly number[];
  readonly alphaBars: readonly number[];
}

/** x′ = x·`x` + x₀·`x0` + (x₀ − x₀ of the step before)·`change`. */
interface Step {
  readonly predict: Prediction;
  readonly x: number;
  readonly x0: number;
  readonly change: number;
}

/**
 * DPM-Solver++(2M), deterministic (arXiv 2211.01095, algorithm 2). In λ = log(√ᾱ/√(1 − ᾱ)), with h = λ′ − λ the step
 * and h₋ the one before, order 2 of type "midpoint" is
 *
 *     x ← (σ′/σ)·x + √ᾱ′·(1 − e^(−h))·(x₀ + ½·(h/h₋)·(x₀ − x₀₋)),   σ = √(1 − ᾱ);
 *
 * "heun" has (1 − (1 − e^(−h))/h)·√ᾱ′ in place of ½·(1 − e^(−h))·√ᾱ′. Order 1, which is DDIM, leaves out the change of
 * x₀; so does the first step, and the last one where the config says so.
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
  const steps = coefficients(options, stops);
  return {
    name: "dpm-solver++",
    spacing: options.useKarrasSigmas ? "karras" : options.timestepSpacing,
    timesteps: stops.timesteps,
    leaps: leapsOf(stops),
    initNoiseSigma: 1,
    notes: options.useKarrasSigmas ? [] : startNotes(options, 1),
    inputScale: () => 1,
    position: (i) => stops.timesteps.length - 1 - i,
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
    ...conversions(steps.map(({ predict }) => predict)),
  };
}

const leapsOf = ({ timesteps, alphaBars }: Stops): Leap[] =>
  timesteps.map((_, i) => ({ from: alphaBars[i] as number, to: alphaBars[i + 1] as number }));

/** For each step the weights of x, x₀ and the change of x₀.  [n] */
function coefficients(options: Required<DpmSolverConfig>, { timesteps, alphaBars }: Stops): Step[] {
  const { numInferenceSteps: n, solverOrder, solverType, lowerOrderFinal, eulerAtFinal, finalSigmasType } = options;
  const lambdas = alphaBars.map((a) => (Math.log(a) - Math.log1p(-a)) / 2); // [n + 1]
  const firstOrderFinal = finalSigmasType === "zero" || eulerAtFinal || (lowerOrderFinal && n < 15);

  return timesteps.map((t, i) => {
    const [now, next] = alphaBars.slice(i, i + 2) as [number, number];
    const [here, there] = lambdas.slice(i, i + 2) as [number, number];
    const before = lambdas[i - 1];
    const h = there - here;
    const gain = -Math.expm1(-h); // 1 − e^(−h)
    const ofChange = solverType === "midpoint" ? gain / 2 : h === 0 ? 0 : 1 - gain / h;
    const secondOrder = solverOrder === 2 && before !== undefined && !(i === n - 1 && firstOrderFinal);
    return {
      predict: prediction(options.predictionType, now, t),
      x: Math.sqrt((1 - next) / (1 - now)),
      x0: Math.sqrt(next) * gain,
      change: secondOrder ? Math.sqrt(next) * ofChange * (h / (here - before)) : 0,
    };
  });
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
      alphaBars: [...sigmas.map((sigma) => 1 / (1 + sigma ** 2)), final],
    };
  }
  // diffusers' solver has no use for timestep 0, which its "leading" and "linspace" lists end with.
  const timesteps = sampledTimesteps({ ...options, timestepSpacing }, 1);
  return { timesteps, alphaBars: [...timesteps.map((t) => alphaBar[t] as number), final] };
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
  const demand = demandOf(options);
  demand([1, 2].includes(options.solverOrder), "solverOrder", "1 or 2");
  demand(solverTypes.includes(options.solverType), "solverType", oneOf(solverTypes));
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
  classes: ["DPMSolverMultistepScheduler"],
  keys: {
    ...sharedKeys,
    solver_order: z.literal([1, 2]),
    solver_type: z.enum(solverTypes),
    lower_order_final: z.boolean(),
    euler_at_final: z.boolean(),
    final_sigmas_type: z.enum(finalSigmasTypes),
    use_karras_sigmas: z.boolean(),
    use_lu_lambdas: z.boolean(),
  },
  fixed: {
    thresholding: z.literal(false),
    algorithm_type: z.literal("dpmsolver++"),
    lambda_min_clipped: z.literal(Number.NEGATIVE_INFINITY),
    use_exponential_sigmas: z.literal(false),
    use_beta_sigmas: z.literal(false),
    use_flow_sigmas: z.literal(false),
  },
  fromKeys: ({ useLuLambdas, ...settings }) => (useLuLambdas ? { ...settings, timestepSpacing: "lambda" } : settings),
  spacings: timestepSpacings,
  create: (settings, chosen) =>
    dpmSolver({ ...settings, ...chosen, ...(chosen.timestepSpacing !== undefined && { useKarrasSigmas: false }) }),
};
