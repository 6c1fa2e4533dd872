import * as z from "zod/mini";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { type Leap, type Level, leapsThrough, straightWeights } from "./levels.js";
import { type LinearStep, linearSampler } from "./linear-steps.js";
import { demandOf, oneOf } from "./options.js";
import { prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import { oneConversion, sigmaDefaults } from "./sigmas.js";
import { type SolverStopsConfig, solverStops, solverStopsDefaults, solverStopsKeys } from "./solver-stops.js";
import { timestepSpacings } from "./timesteps.js";

/** B(h) of the paper: h or e^h − 1. */
export type UniPcSolverType = (typeof uniPcSolverTypes)[number];
export const uniPcSolverTypes = ["bh1", "bh2"] as const;

/** diffusers' `UniPCMultistepScheduler` config in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface UniPcConfig extends SolverStopsConfig {
  /** Model evaluations n, 1 … numTrainTimesteps; for "leading" and "linspace" spacing one less. */
  readonly numInferenceSteps: number;
  /** Outputs that the predictor goes by; the corrector goes by one more. Default 2. */
  readonly solverOrder?: 1 | 2 | 3;
  /** Default "bh2". */
  readonly solverType?: UniPcSolverType;
  /** Extrapolate x₀, or ε. Default true. */
  readonly predictX0?: boolean;
  /** The last steps are of lower order, for stability. Default true. */
  readonly lowerOrderFinal?: boolean;
  /** Steps whose result is not corrected. Default none. */
  readonly disableCorrector?: readonly number[];
}

export const uniPcDefaults: Required<Omit<UniPcConfig, "numInferenceSteps">> = {
  ...solverStopsDefaults,
  solverOrder: 2,
  solverType: "bh2",
  predictX0: true,
  lowerOrderFinal: true,
  disableCorrector: [],
};

/**
 * UniPC (arXiv 2302.04867): a predictor from the last outputs, and a corrector that, once the model has seen what was
 * predicted, moves it by that too. Both begin at the same latent, so that the corrector is a sum of outputs on top of what was
 * predicted, and a step is linear in the latent that the model saw and the outputs so far.
 *
 * Reproduces diffusers' `UniPCMultistepScheduler`, which never clips x₀, except that β, ᾱ and all coefficients are float64
 * (there float32), and that a step to no noise or of no length is of first order, where it gives NaN or infinity.
 *
 * @throws FemoError E_OPTION as {@link solverStops}
 */
export function uniPc(config: UniPcConfig): Sampler {
  const options = { ...uniPcDefaults, ...config };
  check(options);
  const { spacing, notes, timesteps, levels } = solverStops(options);
  return {
    ...linearSampler({
      name: "unipc",
      timesteps,
      leaps: leapsThrough(levels),
      predictions: timesteps.map((t, i) => prediction(options.predictionType, levels[i] as Level, t)),
      steps: timesteps.map((_, i) =>
        Array.from({ length: Math.min(options.solverOrder, i) + 1 }, (_, known) => stepOf(options, levels, i, known)),
      ),
      of: options.predictX0 ? "x0" : "eps",
    }),
    spacing,
    notes,
  };
}

/** Step i, with `known` features before it: what corrects the latent, and what goes on from there. */
function stepOf(options: Required<UniPcConfig>, levels: readonly Level[], i: number, known: number): LinearStep {
  const leap = { from: levels[i] as Level, to: levels[i + 1] as Level };
  const { x, feature } = straightOn(leap, options.predictX0);
  const changes = new Array<number>(known).fill(0);
  const add = (k: number, weight: number): void => {
    changes[k - 1] = (changes[k - 1] as number) + weight;
  };
  differences(options, levels, i, orderOf(options, levels, i, known)).predictor.forEach((weight, j) => {
    add(j + 1, weight);
  });
  if (known > 0 && !options.disableCorrector.includes(i - 1)) {
    const before = differences(options, levels, i - 1, orderOf(options, levels, i - 1, known - 1));
    add(1, -x * before.newest); // f − f₋
    before.corrector.forEach((weight, j) => {
      // f_(−1−k) − f₋, from differences to f
      const more = weight - (before.predictor[j] ?? 0);
      add(1, -x * more);
      add(j + 2, x * more);
    });
  }
  return { x, feature, changes };
}

/** Straight on with the last output, which is first order. */
function straightOn(leap: Leap, predictX0: boolean): { readonly x: number; readonly feature: number } {
  const { from, to } = leap;
  if (predictX0) {
    const { x, x0 } = straightWeights(leap);
    return { x, feature: x0 };
  }
  return { x: to.signal / from.signal, feature: to.noise - (to.signal * from.noise) / from.signal };
}

/** The length in λ that a step must have to be of higher order: what is shorter is rounding. */
const SHORTEST = 1e-6;

/** That of a step's predictor, and of the corrector of where it lands. */
function orderOf(options: Required<UniPcConfig>, levels: readonly Level[], i: number, known: number): number {
  const { solverOrder, lowerOrderFinal } = options;
  const [now, next] = levels.slice(i, i + 2) as [Level, Level];
  if (next.noise === 0 || next.lambda - now.lambda < SHORTEST) return 1;
  return Math.min(solverOrder, lowerOrderFinal ? levels.length - 1 - i : solverOrder, known + 1);
}

/** What a step of order p from latent x, with f there, f₋ₖ before and f₊ where it lands, adds to going straight on. */
interface Differences {
  /** Of the predictor: weights of f − f₋ₖ.  [p − 1] */
  readonly predictor: readonly number[];
  /** The same of the corrector.  [p − 1] */
  readonly corrector: readonly number[];
  /** Of the corrector: the weight of f − f₊. */
  readonly newest: number;
}

function differences(
  { predictX0, solverType }: Required<UniPcConfig>,
  levels: readonly Level[],
  i: number,
  order: number,
): Differences {
  const [now, next] = levels.slice(i, i + 2) as [Level, Level];
  const h = next.lambda - now.lambda;
  const signed = predictX0 ? -h : h;
  const base = solverType === "bh1" ? signed : Math.expm1(signed);
  const scale = (predictX0 ? next.signal : next.noise) * base;
  if (order === 1) return { predictor: [], corrector: [], newest: scale / 2 };
  const ratios = Array.from({ length: order - 1 }, (_, k) => {
    return ((levels[i - 1 - k] as Level).lambda - now.lambda) / h;
  });
  const weighed = (rho: readonly number[]) => ratios.map((r, k) => (scale * (rho[k] as number)) / r);
  const moments = momentsOf(signed, base, order);
  const corrector = weightsFor([...ratios, 1], moments);
  return {
    predictor: weighed(order === 2 ? [1 / 2] : weightsFor(ratios, moments.slice(0, -1))),
    corrector: weighed(corrector),
    newest: scale * (corrector.at(-1) as number),
  };
}

/** φ_(j+1)·j!/B for j = 1 … count, with φ₁ = e^h − 1 and φ_(j+1) = φ_j/h − 1/j!. */
function momentsOf(h: number, base: number, count: number): number[] {
  let phi = Math.expm1(h) / h - 1;
  let factorial = 1;
  return Array.from({ length: count }, (_, j) => {
    const moment = (phi * factorial) / base;
    factorial *= j + 2;
    phi = phi / h - 1 / factorial;
    return moment;
  });
}

/** ρ with Σ_k ρ_k·r_k^j = moments[j], by elimination. */
function weightsFor(ratios: readonly number[], moments: readonly number[]): number[] {
  const rows = moments.map((moment, j) => [...ratios.map((r) => r ** j), moment]);
  for (const [pivot, row] of rows.entries()) {
    for (const [other, target] of rows.entries()) {
      if (other === pivot) continue;
      const factor = (target[pivot] as number) / (row[pivot] as number);
      row.forEach((value, c) => {
        target[c] = (target[c] as number) - factor * value;
      });
    }
  }
  return rows.map((row, j) => (row.at(-1) as number) / (row[j] as number));
}

function check(options: Required<UniPcConfig>): void {
  const demand = demandOf(options);
  demand([1, 2, 3].includes(options.solverOrder), "solverOrder", "1, 2 or 3");
  demand(uniPcSolverTypes.includes(options.solverType), "solverType", oneOf(uniPcSolverTypes));
  const areSteps = options.disableCorrector.every((i) => Number.isInteger(i) && i >= 0);
  demand(areSteps, "disableCorrector", "a list of steps from 0");
}

/** UniPC. A spacing that is chosen goes before levels of Karras and the others. */
export const uniPcSampler: SamplerDefinition<"unipc", Omit<UniPcConfig, "numInferenceSteps">> = {
  name: "unipc",
  title: "UniPC",
  process: "diffusion",
  classes: ["UniPCMultistepScheduler"],
  keys: {
    ...sharedKeys,
    ...solverStopsKeys,
    solver_order: z.literal([1, 2, 3]),
    solver_type: z.enum(uniPcSolverTypes),
    predict_x0: z.boolean(),
    lower_order_final: z.boolean(),
    disable_corrector: z.array(z.int().check(z.minimum(0))),
  },
  fixed: {
    thresholding: z.literal(false),
    solver_p: z.null(),
    use_flow_sigmas: z.literal(false),
    sigma_min: z.null(),
    sigma_max: z.null(),
  },
  fromKeys: oneConversion,
  spacings: timestepSpacings,
  defaults: uniPcDefaults,
  create: (settings, chosen) =>
    uniPc({ ...settings, ...chosen, ...(chosen.timestepSpacing !== undefined && sigmaDefaults) }),
};
