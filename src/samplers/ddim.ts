import { FemoError } from "../errors.js";
import type { Sampler } from "./sampler.js";

/**
 * How the sampled timesteps are chosen among 0 … T − 1, for n steps.
 *
 * "leading", "trailing" and "linspace" are diffusers' (table 2 of arXiv 2305.08891). "dit" is the respacing of the DiT
 * repository: t_i = round(i·(T − 1)/(n − 1)) as in "linspace", but the step from t_i lands on t_(i−1), the previous
 * element, and the last one on ᾱ = 1, where diffusers subtracts ⌊T/n⌋ from t and may land beside its own list.
 */
export type TimestepSpacing = (typeof timestepSpacings)[number];
const timestepSpacings = ["leading", "trailing", "linspace", "dit"] as const;

/** What the model output is: the noise ε, the clean latent x₀, or v = √ᾱ·ε − √(1 − ᾱ)·x₀. */
export type PredictionType = (typeof predictionTypes)[number];
const predictionTypes = ["epsilon", "v_prediction", "sample"] as const;

/** How the noise variances β grow over the training timesteps. */
export type BetaSchedule = (typeof betaSchedules)[number];
const betaSchedules = ["linear", "scaled_linear", "squaredcos_cap_v2"] as const;

/** diffusers' `DDIMScheduler` config in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface DdimConfig {
  /** Model evaluations n, 1 … numTrainTimesteps. */
  readonly numInferenceSteps: number;
  /** Training timesteps T. Default 1000. */
  readonly numTrainTimesteps?: number;
  /** β at timestep 0, in (0, 1). Default 0.0001. */
  readonly betaStart?: number;
  /** β at timestep T − 1, in (0, 1). Default 0.02. */
  readonly betaEnd?: number;
  /** "linear": even in β; "scaled_linear": even in √β; "squaredcos_cap_v2": cosine ᾱ, ignores start and end. */
  readonly betaSchedule?: BetaSchedule;
  /** All T values of β, in place of a schedule. Default null. */
  readonly trainedBetas?: readonly number[] | null;
  /** Clip the predicted x₀ to ±clipSampleRange: for pixels, seldom right for latents. Default true. */
  readonly clipSample?: boolean;
  /** Bound for clipSample, latent scale, > 0. Default 1. */
  readonly clipSampleRange?: number;
  /** After the last step ᾱ is 1 (true) or that of timestep 0 (false); "dit" spacing always takes 1. Default true. */
  readonly setAlphaToOne?: boolean;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** Default "epsilon". */
  readonly predictionType?: PredictionType;
  /** Default "leading". */
  readonly timestepSpacing?: TimestepSpacing;
  /** Shift √ᾱ so that it is 0 at timestep T − 1 (algorithm 1 of arXiv 2305.08891). Default false. */
  readonly rescaleBetasZeroSnr?: boolean;
}

/** A {@link DdimConfig} before the number of steps is chosen, nothing left out. */
export type DdimSchedulerConfig = Required<Omit<DdimConfig, "numInferenceSteps">>;

/** The defaults of diffusers' `DDIMScheduler`. */
export const ddimDefaults: DdimSchedulerConfig = {
  numTrainTimesteps: 1000,
  betaStart: 0.0001,
  betaEnd: 0.02,
  betaSchedule: "linear",
  trainedBetas: null,
  clipSample: true,
  clipSampleRange: 1,
  setAlphaToOne: true,
  stepsOffset: 0,
  predictionType: "epsilon",
  timestepSpacing: "leading",
  rescaleBetasZeroSnr: false,
};

/** What the DiT repository samples with: linear β, its own respacing, no clipping. */
export const ditScheduler: DdimSchedulerConfig = { ...ddimDefaults, clipSample: false, timestepSpacing: "dit" };

/** x₀ = x0FromX·x + x0FromM·m and ε = epsFromX·x + epsFromM·m, for latent x and model output m. */
interface Prediction {
  readonly x0FromX: number;
  readonly x0FromM: number;
  readonly epsFromX: number;
  readonly epsFromM: number;
}

/**
 * DDIM with η = 0 (arXiv 2010.02502, eq. 12): x ← √ᾱ′·x₀ + √(1 − ᾱ′)·ε, where x₀ and ε follow from x and the model
 * output, and ᾱ′ belongs to the timestep the step lands on.
 *
 * Reproduces diffusers' `DDIMScheduler`, except that β, ᾱ and all coefficients are float64 (there float32), and that
 * "trailing" spacing has exactly n timesteps (there, for some n such as 61, rounding appends a timestep of −1).
 *
 * @throws FemoError E_OPTION if a value is outside its range, if an offset leads past timestep T − 1, or if ε is to be
 *   predicted at a timestep without signal (ᾱ = 0), where x₀ cannot be recovered from it
 */
export function ddim(config: DdimConfig): Sampler {
  const chain = { ...ddimDefaults, ...config };
  check(chain);
  const { numTrainTimesteps: T, numInferenceSteps: n } = chain;
  const alphaBar = cumulativeAlphas(chain); // [T]
  const timesteps = sampledTimesteps(chain); // [n]
  const dit = chain.timestepSpacing === "dit";

  /** ᾱ at a timestep; below 0 the chain has ended. */
  const alphaBarAt = (t: number): number =>
    t >= 0 ? (alphaBar[t] as number) : dit || chain.setAlphaToOne ? 1 : (alphaBar[0] as number);

  const steps = timesteps.map((t, i) => {
    const landing = dit ? (timesteps[i + 1] ?? -1) : t - Math.floor(T / n);
    const next = alphaBarAt(landing);
    return {
      predict: prediction(chain.predictionType, alphaBarAt(t), t),
      x0: Math.sqrt(next),
      eps: Math.sqrt(1 - next),
    };
  });

  const bound = chain.clipSample ? chain.clipSampleRange : Number.POSITIVE_INFINITY;
  return {
    timesteps,
    initNoiseSigma: 1,
    step(i, latent, modelOutput) {
      const coefficients = steps[i];
      if (coefficients === undefined) {
        throw new FemoError("E_OPTION", `step: expected an index from 0 to ${n - 1}, found ${i}.`);
      }
      if (latent.length !== modelOutput.length) {
        throw new FemoError(
          "E_OPTION",
          `step ${i}: expected a model output as long as the latent, ${latent.length}, found ${modelOutput.length}. ` +
            "A model that also predicts its variance has twice the channels: pass the first half.",
        );
      }
      const { predict, x0: x0Scale, eps: epsScale } = coefficients;
      const next = new Float32Array(latent.length);
      for (let k = 0; k < next.length; k++) {
        const x = latent[k] as number;
        const m = modelOutput[k] as number;
        const x0 = Math.min(Math.max(predict.x0FromX * x + predict.x0FromM * m, -bound), bound);
        const eps = predict.epsFromX * x + predict.epsFromM * m; // not derived again from a clipped x₀, as in diffusers
        next[k] = x0Scale * x0 + epsScale * eps;
      }
      return next;
    },
  };
}

/** Solves x = √ᾱ·x₀ + √(1 − ᾱ)·ε for x₀ and ε, given the one the model predicts. */
function prediction(type: PredictionType, alphaBar: number, timestep: number): Prediction {
  const a = Math.sqrt(alphaBar);
  const b = Math.sqrt(1 - alphaBar);
  switch (type) {
    case "epsilon":
      if (a === 0) {
        throw new FemoError(
          "E_OPTION",
          `timestep ${timestep} has no signal (rescaleBetasZeroSnr), so x₀ cannot be recovered from predicted noise: ` +
            'use predictionType "v_prediction" or "sample", or a timestepSpacing that leaves this timestep out.',
        );
      }
      return { x0FromX: 1 / a, x0FromM: -b / a, epsFromX: 0, epsFromM: 1 };
    case "sample":
      return { x0FromX: 0, x0FromM: 1, epsFromX: 1 / b, epsFromM: -a / b };
    case "v_prediction":
      return { x0FromX: a, x0FromM: -b, epsFromX: b, epsFromM: a };
  }
}

/** ᾱ_t = Π_(s ≤ t) (1 − β_s).  [T] */
function cumulativeAlphas(chain: DdimSchedulerConfig): Float64Array {
  const alphaBar = new Float64Array(chain.numTrainTimesteps);
  let product = 1;
  betas(chain).forEach((beta, t) => {
    product *= 1 - beta;
    alphaBar[t] = product;
  });
  return chain.rescaleBetasZeroSnr ? zeroTerminalSnr(alphaBar) : alphaBar;
}

/** β_t.  [T] */
function betas({
  trainedBetas,
  betaSchedule,
  betaStart,
  betaEnd,
  numTrainTimesteps: T,
}: DdimSchedulerConfig): number[] {
  if (trainedBetas !== null) return [...trainedBetas];
  switch (betaSchedule) {
    case "linear":
      return linspace(betaStart, betaEnd, T);
    case "scaled_linear":
      return linspace(Math.sqrt(betaStart), Math.sqrt(betaEnd), T).map((root) => root ** 2);
    case "squaredcos_cap_v2": {
      // arXiv 2102.09672, eq. 17, and its cap of 0.999
      const cosine = (t: number) => Math.cos((((t / T + 0.008) / 1.008) * Math.PI) / 2) ** 2;
      return Array.from({ length: T }, (_, t) => Math.min(1 - cosine(t + 1) / cosine(t), 0.999));
    }
  }
}

/** √ᾱ shifted to end at 0, then scaled to begin where it began (arXiv 2305.08891, algorithm 1). */
function zeroTerminalSnr(alphaBar: Float64Array): Float64Array {
  const root = alphaBar.map(Math.sqrt);
  const first = root[0] as number;
  const last = root[root.length - 1] as number;
  return root.map((value) => (((value - last) * first) / (first - last)) ** 2);
}

/** The timesteps fed to the model, noisiest first.  [n] */
function sampledTimesteps(chain: DdimSchedulerConfig & DdimConfig): number[] {
  const { numInferenceSteps: n, numTrainTimesteps: T, timestepSpacing, stepsOffset } = chain;
  switch (timestepSpacing) {
    case "leading": {
      const timesteps = range(n, (i) => (n - 1 - i) * Math.floor(T / n) + stepsOffset);
      if ((timesteps[0] as number) >= T) {
        throw new FemoError(
          "E_OPTION",
          `stepsOffset: ${n} steps with offset ${stepsOffset} would begin at timestep ${timesteps[0]}, but the model knows ` +
            `0 to ${T - 1}: use fewer steps or offset 0.`,
        );
      }
      return timesteps;
    }
    case "trailing": {
      // NumPy's arange adds multiples of the difference of its first two elements, not of the step itself.
      const difference = T - T / n - T;
      return range(n, (i) => roundHalfEven(T + i * difference) - 1);
    }
    case "linspace":
      return linspace(0, T - 1, n)
        .reverse()
        .map(roundHalfEven);
    case "dit": {
      // The repository sums the stride up, so that halves may round otherwise than i·stride would.
      const stride = n === 1 ? 1 : (T - 1) / (n - 1);
      let t = 0;
      const ascending = range(n, () => {
        const rounded = roundHalfEven(t);
        t += stride;
        return rounded;
      });
      return ascending.reverse();
    }
  }
}

const range = (length: number, at: (i: number) => number): number[] => Array.from({ length }, (_, i) => at(i));

/** `count` evenly spaced values, both ends included; only the start when count is 1. */
function linspace(start: number, end: number, count: number): number[] {
  const step = count === 1 ? 0 : (end - start) / (count - 1);
  return range(count, (i) => (i > 0 && i === count - 1 ? end : start + i * step));
}

/** Nearest integer, ties to the even one, as in NumPy and Python. */
function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const fraction = value - floor;
  if (fraction !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

function check(chain: DdimSchedulerConfig & DdimConfig): void {
  const { numInferenceSteps: n, numTrainTimesteps: T, trainedBetas } = chain;
  const demand = (holds: boolean, name: keyof DdimConfig, expected: string) => {
    if (!holds) throw new FemoError("E_OPTION", `${name}: expected ${expected}, found ${String(chain[name])}.`);
  };
  const isBeta = (beta: number) => beta > 0 && beta < 1;
  const demandOneOf = (name: keyof DdimConfig, allowed: readonly unknown[]) =>
    demand(allowed.includes(chain[name]), name, `one of ${allowed.join(", ")}`);
  demandOneOf("betaSchedule", betaSchedules);
  demandOneOf("predictionType", predictionTypes);
  demandOneOf("timestepSpacing", timestepSpacings);
  demand(Number.isInteger(T) && T >= 1, "numTrainTimesteps", "a positive integer");
  demand(Number.isInteger(n) && n >= 1 && n <= T, "numInferenceSteps", `an integer from 1 to ${T} (numTrainTimesteps)`);
  demand(isBeta(chain.betaStart), "betaStart", "a number between 0 and 1");
  demand(isBeta(chain.betaEnd), "betaEnd", "a number between 0 and 1");
  demand(trainedBetas === null || trainedBetas.length === T, "trainedBetas", `${T} values (numTrainTimesteps)`);
  demand(trainedBetas?.every(isBeta) ?? true, "trainedBetas", "numbers between 0 and 1");
  demand(chain.clipSampleRange > 0, "clipSampleRange", "a positive number");
  demand(Number.isInteger(chain.stepsOffset) && chain.stepsOffset >= 0, "stepsOffset", "a non-negative integer");
  demand(!chain.rescaleBetasZeroSnr || T >= 2, "rescaleBetasZeroSnr", "false when there is a single training timestep");
}
