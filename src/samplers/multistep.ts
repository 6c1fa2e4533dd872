import { z } from "zod";
import { FemoError } from "../errors.js";
import { conversions } from "./conversions.js";
import type { SamplerDefinition } from "./definition.js";
import { demandOf } from "./options.js";
import { type Prediction, prediction } from "./prediction.js";
import { checkedStep, type Leap, type Sampler } from "./sampler.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** A linear multistep solver as plain data: what a request's `sampler` may be, or a JSON file. */
export interface MultistepSolver {
  readonly sampler: "multistep";
  /** Fed to the model: whole numbers from 0 to T − 1, each below the one before.  [n] */
  readonly timesteps: readonly number[];
  /** c: row i weighs x₀ of the steps 0 … i, oldest first, and sums to 1 within 1e-6.  [n][i + 1] */
  readonly table: readonly (readonly number[])[];
  /** ᾱ where the last step lands, from that of the last timestep to 1. Default 1: on no noise. */
  readonly finalAlphaBar?: number | undefined;
}

/** A {@link MultistepSolver} with the training chain of the model. */
export interface MultistepConfig extends Omit<MultistepSolver, "sampler">, TrainingChainConfig {}

/** Of what may be left out. */
export const multistepDefaults = { ...trainingChainDefaults, finalAlphaBar: 1 };

/** How far the sum of a row may be from 1: what it loses by being written with seven digits. */
const SUM_TOLERANCE = 1e-6;

const schema = z
  .strictObject({
    sampler: z.literal("multistep"),
    timesteps: z.array(z.int().nonnegative()).min(1).readonly(),
    table: z.array(z.array(z.number()).readonly()).readonly(),
    finalAlphaBar: z.number().gt(0).max(1).optional(),
  })
  .superRefine(({ timesteps, table }, { addIssue }) => {
    const refuse = (path: (string | number)[], message: string) => addIssue({ code: "custom", path, message });
    timesteps.forEach((t, i) => {
      const before = timesteps[i - 1] ?? Number.POSITIVE_INFINITY;
      if (t >= before) refuse(["timesteps", i], `expected a number below the one before, ${before}, found ${t}`);
    });
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
  });

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
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map(({ path, message }) => [...path.map(String), message].join(": "));
  throw new FemoError(code, `${where}: ${issues.join("; ")}`);
}

/** x′ = x·`x` + `x0`·(Σ `row`·x₀). */
interface Step {
  readonly predict: Prediction;
  readonly x: number;
  readonly x0: number;
  readonly row: readonly number[];
}

/**
 * A linear multistep solver given by its coefficients. In y = x/√ᾱ and s = √(1 − ᾱ)/√ᾱ, with D_j the x₀ predicted at
 * step j,
 *
 *     y ← (s′/s)·y + (1 − s′/s)·Σ_(j ≤ i) c_ij·D_j,   which is   x ← (σ′/σ)·x + (√ᾱ′ − √ᾱ·σ′/σ)·Σ c_ij·D_j,   σ = √(1 − ᾱ).
 *
 * DDIM is c_ii = 1. A run that begins inside knows no D from before: the oldest that it knows stands in for them.
 *
 * @throws FemoError E_OPTION if a value is outside its range or the table does not fit, or if ε is to be predicted at a
 *   timestep without signal
 */
export function multistep(config: MultistepConfig): Sampler {
  const options = { ...trainingChainDefaults, ...config };
  checkTrainingChain(options);
  const { timesteps, table, finalAlphaBar } = options;
  const solver = multistepSolver({ sampler: "multistep", timesteps, table, finalAlphaBar });
  const leaps = leapsOf(options, solver);
  const steps = leaps.map(({ from, to }, i): Step => {
    const x = Math.sqrt((1 - to) / (1 - from));
    return {
      predict: prediction(options.predictionType, from, solver.timesteps[i] as number),
      x,
      x0: Math.sqrt(to) - Math.sqrt(from) * x,
      row: solver.table[i] as readonly number[],
    };
  });
  const { denoised, modelOutput } = conversions(steps.map(({ predict }) => predict));
  return {
    name: "multistep",
    spacing: "given",
    timesteps: solver.timesteps,
    leaps,
    initNoiseSigma: 1,
    notes: [],
    inputScale: () => 1,
    position: (i) => solver.timesteps.length - 1 - i,
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

function leapsOf(options: Required<TrainingChainConfig>, { timesteps, finalAlphaBar = 1 }: MultistepSolver): Leap[] {
  const alphaBar = cumulativeAlphas(options); // [T]
  const last = alphaBar.length - 1;
  if ((timesteps[0] as number) > last) {
    throw new FemoError("E_OPTION", `timesteps: expected numbers from 0 to ${last}, found ${timesteps[0]}.`);
  }
  const levels = timesteps.map((t) => alphaBar[t] as number);
  const cleanest = levels.at(-1) as number;
  const demand = demandOf({ finalAlphaBar });
  demand(finalAlphaBar >= cleanest, "finalAlphaBar", `at least that of the last timestep, ${cleanest}`);
  return levels.map((from, i) => ({ from, to: levels[i + 1] ?? finalAlphaBar }));
}

/** A solver that a request gives; no model brings one. */
export const multistepSampler: SamplerDefinition<"multistep", MultistepConfig> = {
  name: "multistep",
  title: "Multistep",
  classes: [],
  keys: {},
  fixed: {},
  spacings: [],
  given(choice) {
    const { sampler: _, ...settings } = multistepSolver(choice);
    return settings;
  },
  create(settings, { numInferenceSteps, timestepSpacing }) {
    const sampler = multistep(settings);
    const n = sampler.timesteps.length;
    const demand = demandOf({ numInferenceSteps, timestepSpacing });
    demand(numInferenceSteps === n, "numInferenceSteps", `${n}, one for each timestep of the sampler, or none`);
    demand(timestepSpacing === undefined, "timestepSpacing", "none beside the timesteps of the sampler");
    return sampler;
  },
};
