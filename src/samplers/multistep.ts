import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse, schemaIssues } from "../schema-issues.js";
import { conversions } from "./conversions.js";
import type { Process, SamplerDefinition } from "./definition.js";
import { alphaBarAt } from "./level-timesteps.js";
import { diffusionLevel, type Leap, leapsThrough, straightWeights } from "./levels.js";
import { demandOf } from "./options.js";
import { type Prediction, prediction } from "./prediction.js";
import { checkedStep, type Sampler } from "./sampler.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** A linear multistep solver as plain data: what a request's `sampler` may be, or a JSON file. */
export interface MultistepSolver {
  readonly sampler: "multistep";
  /**
   * Fed to the model, each below the one before: whole numbers from 0 to T − 1 of a diffusion, numbers from 1 to above 0 of a
   * flow.  [n]
   */
  readonly timesteps: readonly number[];
  /**
   * Of the noise levels that the solver counts with, where those are not what the model is told: in the same range, each below
   * the one before. A fraction lies between two timesteps of a diffusion by its log(σ).  [n]
   */
  readonly levelTimesteps?: readonly number[] | undefined;
  /** c: row i weighs x₀ of the steps 0 … i, oldest first, and sums to 1 within 1e-6.  [n][i + 1] */
  readonly table: readonly (readonly number[])[];
  /** Of a diffusion: ᾱ where the last step lands, from that of the last timestep to 1. Default 1: on no noise. */
  readonly finalAlphaBar?: number | undefined;
}

/** A {@link MultistepSolver} with the training chain of the model. */
export interface MultistepConfig extends Omit<MultistepSolver, "sampler">, TrainingChainConfig {}

/** Of what may be left out. */
export const multistepDefaults = { ...trainingChainDefaults, finalAlphaBar: 1 };

/** How far the sum of a row may be from 1: what it loses by being written with seven digits. */
const SUM_TOLERANCE = 1e-6;

const falling = z.readonly(z.array(z.number().check(z.nonnegative())).check(z.minLength(1)));

/** The fields of a solver, in a file too. */
export const multistepFields = {
  timesteps: falling,
  levelTimesteps: z.optional(falling),
  table: z.readonly(z.array(z.readonly(z.array(z.number())))),
  finalAlphaBar: z.optional(z.number().check(z.gt(0), z.maximum(1))),
};

const schema = z.strictObject({ sampler: z.literal("multistep"), ...multistepFields }).check(
  z.superRefine(({ timesteps, levelTimesteps, table }, { addIssue }) => {
    const refuse = (path: (string | number)[], message: string) => addIssue({ code: "custom", path, message });
    timesteps.forEach((t, i) => {
      if (t > 1 && !Number.isInteger(t)) {
        refuse(["timesteps", i], `expected a whole number, or, of a flow, one from 0 to 1, found ${t}`);
      }
    });
    for (const [name, list] of Object.entries({ timesteps, levelTimesteps })) {
      list?.forEach((t, i) => {
        const before = list[i - 1] ?? Number.POSITIVE_INFINITY;
        if (t >= before) refuse([name, i], `expected a number below the one before, ${before}, found ${t}`);
      });
    }
    if (levelTimesteps && levelTimesteps.length !== timesteps.length) {
      refuse(["levelTimesteps"], `expected ${timesteps.length}, one for each timestep, found ${levelTimesteps.length}`);
    }
    if (table.length !== timesteps.length) {
      refuse(["table"], `expected ${timesteps.length} rows, one for each timestep, found ${table.length}`);
    }
    table.forEach((row, i) => {
      const sum = row.reduce((a, b) => a + b, 0);
      if (row.length !== i + 1) {
        refuse(["table", i], `expected ${i + 1} weights, one for each step up to this, found ${row.length}`);
      } else if (!(Math.abs(sum - 1) <= SUM_TOLERANCE)) {
        refuse(["table", i], `expected weights that sum to 1, found a sum of ${sum}`);
      }
    });
  }),
);

/**
 * A solver out of plain data.
 * @param where it comes from, for errors
 * @throws FemoError with `code`, naming each field that is wrong, what was expected and what was found
 */
export function multistepSolver(
  value: unknown,
  where = "sampler",
  code: "E_OPTION" | "E_CONFIG" = "E_OPTION",
): MultistepSolver {
  const parsed = safeParse(schema, value);
  if (parsed.success) return parsed.data;
  throw new FemoError(code, `${where}: ${schemaIssues(parsed.error, "the solver").join("; ")}`);
}

/** x′ = x·`x` + `x0`·(Σ `row`·x₀). */
interface Step {
  readonly predict: Prediction;
  readonly x: number;
  readonly x0: number;
  readonly row: readonly number[];
}

/**
 * A linear multistep solver given by its coefficients. In y = x/signal and s = noise/signal, with D_j the x₀ predicted at
 * step j,
 *
 *     y ← (s′/s)·y + (1 − s′/s)·Σ_(j ≤ i) c_ij·D_j,   which is   x ← r·x + (signal′ − signal·r)·Σ c_ij·D_j,   r = noise′/noise.
 *
 * DDIM, and Euler of a flow, is c_ii = 1. A run that begins inside knows no D from before: the oldest that it knows stands
 * in for them.
 *
 * @param predictions what the model gives at each timestep.  [n]
 */
export function tabled(
  { timesteps, table }: Omit<MultistepSolver, "sampler">,
  leaps: readonly Leap[],
  predictions: readonly Prediction[],
): Sampler {
  const steps = leaps.map(
    (leap, i): Step => ({
      predict: predictions[i] as Prediction,
      ...straightWeights(leap),
      row: table[i] as readonly number[],
    }),
  );
  const { denoised, modelOutput } = conversions(predictions);
  return {
    name: "multistep",
    spacing: "given",
    timesteps,
    leaps,
    initNoiseSigma: 1,
    notes: [],
    inputScale: () => 1,
    position: (i) => timesteps.length - 1 - i,
    step(i, state, output) {
      const { x: xScale, x0: x0Scale, row } = checkedStep(steps, i, state, output);
      const { latent, history = [] } = state;
      const known = [denoised(i, latent, output), ...history]; // newest first, as `weights`
      const weights = folded([...row].reverse(), known.length);
      const mean = weightedSum(weights, known);
      return { latent: latent.map((x, k) => xScale * x + x0Scale * (mean[k] as number)), history: known };
    },
    denoised,
    modelOutput,
  };
}

/**
 * {@link tabled} for a diffusion.
 * @throws FemoError E_OPTION if a value is outside its range or the table does not fit, or if ε is to be predicted at a
 *   timestep without signal
 */
export function multistep(config: MultistepConfig): Sampler {
  const options = { ...trainingChainDefaults, ...config };
  checkTrainingChain(options);
  const { timesteps, levelTimesteps, table, finalAlphaBar } = options;
  const solver = multistepSolver({ sampler: "multistep", timesteps, levelTimesteps, table, finalAlphaBar });
  const leaps = leapsOf(options, solver);
  const predictions = leaps.map(({ from }, i) => prediction(options.predictionType, from, timesteps[i] as number));
  return tabled(solver, leaps, predictions);
}

/** The first `count` of the weights; the last of them takes over those that are left. */
const folded = (weights: readonly number[], count: number): number[] =>
  weights.length <= count
    ? [...weights]
    : [...weights.slice(0, count - 1), weights.slice(count - 1).reduce((a, b) => a + b, 0)];

function weightedSum(weights: readonly number[], rows: readonly Float32Array[]): Float64Array {
  const sum = new Float64Array(rows[0]?.length ?? 0);
  rows.forEach((row, j) => {
    const weight = weights[j] as number;
    for (let k = 0; weight !== 0 && k < sum.length; k++) sum[k] = (sum[k] as number) + weight * (row[k] as number);
  });
  return sum;
}

function leapsOf(options: Required<TrainingChainConfig>, solver: MultistepSolver): Leap[] {
  const { timesteps, levelTimesteps = timesteps, finalAlphaBar = 1 } = solver;
  const alphaBar = cumulativeAlphas(options); // [T]
  const last = alphaBar.length - 1;
  const refuse = (name: string, wanted: string, found: number): never => {
    throw new FemoError("E_OPTION", `${name}: expected ${wanted} from 0 to ${last}, found ${found}.`);
  };
  for (const t of timesteps) if (t > last || !Number.isInteger(t)) refuse("timesteps", "whole numbers", t);
  for (const t of levelTimesteps) if (t > last) refuse("levelTimesteps", "numbers", t);
  const bars = levelTimesteps.map((t) => alphaBarAt(alphaBar, t));
  const cleanest = bars.at(-1) as number;
  const demand = demandOf({ finalAlphaBar });
  demand(finalAlphaBar >= cleanest, "finalAlphaBar", `at least that of the last timestep, ${cleanest}`);
  return leapsThrough([...bars, finalAlphaBar].map(diffusionLevel));
}

/**
 * A solver that a request gives, as a definition; no model brings one.
 * @param build it, of the model's settings and the solver's
 */
export const solverDefinition = <Settings extends object>(
  process: Process,
  build: (settings: Settings) => Sampler,
): SamplerDefinition<"multistep", Settings> => ({
  name: "multistep",
  title: "Multistep",
  process,
  classes: [],
  keys: {},
  fixed: {},
  spacings: [],
  given(choice) {
    const { sampler: _, ...settings } = multistepSolver(choice);
    return settings;
  },
  create(settings, { numInferenceSteps, timestepSpacing, sigmas }) {
    const sampler = build(settings);
    const n = sampler.timesteps.length;
    const demand = demandOf({ numInferenceSteps, timestepSpacing, sigmas });
    demand(numInferenceSteps === n, "numInferenceSteps", `${n}, one for each timestep of the sampler, or none`);
    demand(timestepSpacing === undefined, "timestepSpacing", "none beside the timesteps of the sampler");
    demand(sigmas === undefined, "sigmas", "none beside the timesteps of the sampler");
    return sampler;
  },
});

export const multistepSampler = solverDefinition<MultistepConfig>("diffusion", multistep);
