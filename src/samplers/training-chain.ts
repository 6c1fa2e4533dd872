import { demandOf, oneOf } from "./options.js";
import { type PredictionType, predictionTypes } from "./prediction.js";
import { isTrainTimesteps, linspace, MOST_TRAIN_TIMESTEPS } from "./timesteps.js";

/** How the noise variances β grow over the training timesteps. */
export type BetaSchedule = (typeof betaSchedules)[number];
export const betaSchedules = ["linear", "scaled_linear", "squaredcos_cap_v2"] as const;

/** The noising that a model was trained to undo, as diffusers' schedulers name it, in camelCase. */
export interface TrainingChainConfig {
  /** Training timesteps T, 1 … 100 000. Default 1000. */
  readonly numTrainTimesteps?: number;
  /** β at timestep 0, in (0, 1). Default 0.0001. */
  readonly betaStart?: number;
  /** β at timestep T − 1, in (0, 1). Default 0.02. */
  readonly betaEnd?: number;
  /** "linear": even in β; "scaled_linear": even in √β; "squaredcos_cap_v2": cosine ᾱ, ignores start and end. */
  readonly betaSchedule?: BetaSchedule;
  /** All T values of β, in place of a schedule. Default null. */
  readonly trainedBetas?: readonly number[] | null;
  /** Shift √ᾱ so that it is 0 at timestep T − 1 (algorithm 1 of arXiv 2305.08891). Default false. */
  readonly rescaleBetasZeroSnr?: boolean;
  /** What the model predicts. Default "epsilon". */
  readonly predictionType?: PredictionType;
}

export type TrainingChain = Required<TrainingChainConfig>;
/** The noising alone, whatever the model predicts of it. */
export type Noising = Omit<TrainingChain, "predictionType">;

/** The defaults of all diffusers' schedulers. */
export const trainingChainDefaults: TrainingChain = {
  numTrainTimesteps: 1000,
  betaStart: 0.0001,
  betaEnd: 0.02,
  betaSchedule: "linear",
  trainedBetas: null,
  rescaleBetasZeroSnr: false,
  predictionType: "epsilon",
};

/** ᾱ_t = Π_(s ≤ t) (1 − β_s).  [T] */
export function cumulativeAlphas(chain: Noising): Float64Array {
  const alphaBar = new Float64Array(chain.numTrainTimesteps);
  let product = 1;
  betas(chain).forEach((beta, t) => {
    product *= 1 - beta;
    alphaBar[t] = product;
  });
  return chain.rescaleBetasZeroSnr ? zeroTerminalSnr(alphaBar) : alphaBar;
}

/** β_t.  [T] */
function betas({ trainedBetas, betaSchedule, betaStart, betaEnd, numTrainTimesteps: T }: Noising): number[] {
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

/** @throws FemoError E_OPTION if a value is outside its range */
export function checkTrainingChain(chain: TrainingChain): void {
  const { numTrainTimesteps: T, trainedBetas } = chain;
  const demand = demandOf(chain);
  const isBeta = (beta: number) => beta > 0 && beta < 1;
  demand(betaSchedules.includes(chain.betaSchedule), "betaSchedule", oneOf(betaSchedules));
  demand(predictionTypes.includes(chain.predictionType), "predictionType", oneOf(predictionTypes));
  demand(isTrainTimesteps(T), "numTrainTimesteps", `an integer from 1 to ${MOST_TRAIN_TIMESTEPS}`);
  demand(isBeta(chain.betaStart), "betaStart", "a number between 0 and 1");
  demand(isBeta(chain.betaEnd), "betaEnd", "a number between 0 and 1");
  demand(trainedBetas === null || trainedBetas.length === T, "trainedBetas", `${T} values (numTrainTimesteps)`);
  demand(trainedBetas?.every(isBeta) ?? true, "trainedBetas", "numbers between 0 and 1");
  demand(!chain.rescaleBetasZeroSnr || T >= 2, "rescaleBetasZeroSnr", "false when there is a single training timestep");
}
