import { processOf } from "./definition.js";
import { flowDefaults, MODEL_TIME } from "./flow-schedule.js";
import type { Level } from "./levels.js";
import { chainSigmas, timestepAt } from "./sigmas.js";
import { cumulativeAlphas, type Noising, trainingChainDefaults } from "./training-chain.js";

/** What of a model's scheduler says which timesteps have which levels. */
export interface LevelsOfTimesteps extends Partial<Noising> {
  readonly predictionType?: string;
}

/**
 * Noise levels as the timesteps, or fractions between two, that have them, as a model with this scheduler is told timesteps. Of
 * a flow they are σ; on the chain of a diffusion log(σ) is linear between two.
 */
export function levelTimesteps(scheduler: LevelsOfTimesteps, levels: readonly Level[]): number[] {
  if (processOf(scheduler) === "flow") {
    const { numTrainTimesteps = flowDefaults.numTrainTimesteps } = scheduler;
    return levels.map(({ noise }) => (noise * numTrainTimesteps) / MODEL_TIME);
  }
  const sigmas = chainSigmas(cumulativeAlphas({ ...trainingChainDefaults, ...scheduler }));
  return levels.map(({ signal, noise }) => timestepAt(sigmas, noise / signal));
}

/** ᾱ of the level that a timestep of a chain, or a fraction between two, has. */
export function alphaBarAt(alphaBar: Float64Array, t: number): number {
  const below = Math.floor(t);
  if (t === below) return alphaBar[below] as number;
  const [low, high] = chainSigmas(alphaBar.subarray(below, below + 2)).map(Math.log) as [number, number];
  return 1 / (1 + Math.exp(2 * (low + (t - below) * (high - low))));
}
