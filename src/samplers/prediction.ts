import { FemoError } from "../errors.js";
import type { Level } from "./levels.js";

/** What the model of a diffusion gives: the noise ε, the clean latent x₀, or v = √ᾱ·ε − √(1 − ᾱ)·x₀. */
export type PredictionType = (typeof predictionTypes)[number];
export const predictionTypes = ["epsilon", "v_prediction", "sample"] as const;

/** What the model of a flow gives: its velocity v = ε − x₀. */
export type FlowPredictionType = typeof flowPrediction;
export const flowPrediction = "flow_prediction";

/** x₀ = x0FromX·x + x0FromM·m and ε = epsFromX·x + epsFromM·m, for latent x and model output m. */
export interface Prediction {
  readonly x0FromX: number;
  readonly x0FromM: number;
  readonly epsFromX: number;
  readonly epsFromM: number;
}

/**
 * Solves x = signal·x₀ + noise·ε for x₀ and ε, given the one the model predicts. It sees x scaled to a variance of 1, and v is
 * of that.
 * @throws FemoError E_OPTION if x₀ is to come from ε where there is no signal
 */
export function prediction(
  type: PredictionType | FlowPredictionType,
  { signal: a, noise: b, signalVariance, noiseVariance }: Level,
  timestep: number,
): Prediction {
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
    case "v_prediction": {
      const variance = signalVariance + noiseVariance; // 1 of a diffusion's own levels
      const deviation = Math.sqrt(variance);
      return { x0FromX: a / variance, x0FromM: -b / deviation, epsFromX: b / variance, epsFromM: a / deviation };
    }
    case "flow_prediction":
      return { x0FromX: 1, x0FromM: -b, epsFromX: 1, epsFromM: a };
  }
}
