import { demandOf } from "./options.js";
import { prediction } from "./prediction.js";
import { checkedStep, type Sampler } from "./sampler.js";
import { checkSpacing, sampledTimesteps, type TimestepSpacing } from "./timesteps.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** diffusers' `DDIMScheduler` config in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface DdimConfig extends TrainingChainConfig {
  /** Model evaluations n, 1 … numTrainTimesteps. */
  readonly numInferenceSteps: number;
  /** Clip the predicted x₀ to ±clipSampleRange: for pixels, seldom right for latents. Default true. */
  readonly clipSample?: boolean;
  /** Bound for clipSample, latent scale, > 0. Default 1. */
  readonly clipSampleRange?: number;
  /** After the last step ᾱ is 1 (true) or that of timestep 0 (false); "dit" spacing always takes 1. Default true. */
  readonly setAlphaToOne?: boolean;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** Default "leading". */
  readonly timestepSpacing?: TimestepSpacing;
}

/** A {@link DdimConfig} before the number of steps is chosen, nothing left out. */
export type DdimSchedulerConfig = Required<Omit<DdimConfig, "numInferenceSteps">>;

/** The defaults of diffusers' `DDIMScheduler`. */
export const ddimDefaults: DdimSchedulerConfig = {
  ...trainingChainDefaults,
  clipSample: true,
  clipSampleRange: 1,
  setAlphaToOne: true,
  stepsOffset: 0,
  timestepSpacing: "leading",
};

/**
 * DDIM with η = 0 (arXiv 2010.02502, eq. 12): x ← √ᾱ′·x₀ + √(1 − ᾱ′)·ε, where x₀ and ε follow from x and the model
 * output, and ᾱ′ belongs to the timestep the step lands on.
 *
 * Reproduces diffusers' `DDIMScheduler`, except that β, ᾱ and all coefficients are float64 (there float32).
 *
 * @throws FemoError E_OPTION if a value is outside its range, if an offset leads past timestep T − 1, or if ε is to be
 *   predicted at a timestep without signal (ᾱ = 0), where x₀ cannot be recovered from it
 */
export function ddim(config: DdimConfig): Sampler {
  const options = { ...ddimDefaults, ...config };
  checkTrainingChain(options);
  checkSpacing(options);
  demandOf(options)(options.clipSampleRange > 0, "clipSampleRange", "a positive number");
  const timesteps = sampledTimesteps(options); // [n]
  const steps = coefficients(options, timesteps);
  const bound = options.clipSample ? options.clipSampleRange : Number.POSITIVE_INFINITY;
  return {
    name: "ddim",
    spacing: options.timestepSpacing,
    timesteps,
    initNoiseSigma: 1,
    step(i, state, modelOutput) {
      const { predict, x0: x0Scale, eps: epsScale } = checkedStep(steps, i, state, modelOutput);
      const { latent } = state;
      const next = new Float32Array(latent.length);
      for (let k = 0; k < next.length; k++) {
        const x = latent[k] as number;
        const m = modelOutput[k] as number;
        const x0 = Math.min(Math.max(predict.x0FromX * x + predict.x0FromM * m, -bound), bound);
        const eps = predict.epsFromX * x + predict.epsFromM * m; // not derived again from a clipped x₀, as in diffusers
        next[k] = x0Scale * x0 + epsScale * eps;
      }
      return { latent: next };
    },
  };
}

/** For each step how x₀ and ε are found, and the weights of both in the next latent.  [n] */
function coefficients(options: Required<DdimConfig>, timesteps: readonly number[]) {
  const { numTrainTimesteps: T, numInferenceSteps: n, timestepSpacing, setAlphaToOne, predictionType } = options;
  const alphaBar = cumulativeAlphas(options); // [T]
  const dit = timestepSpacing === "dit";

  /** ᾱ at a timestep; below 0 the chain has ended. */
  const alphaBarAt = (t: number): number =>
    t >= 0 ? (alphaBar[t] as number) : dit || setAlphaToOne ? 1 : (alphaBar[0] as number);

  return timesteps.map((t, i) => {
    const landing = dit ? (timesteps[i + 1] ?? -1) : t - Math.floor(T / n);
    const next = alphaBarAt(landing);
    return { predict: prediction(predictionType, alphaBarAt(t), t), x0: Math.sqrt(next), eps: Math.sqrt(1 - next) };
  });
}
