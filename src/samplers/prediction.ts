import { FemoError } from "../errors.js";

/** What the model output is: the noise ε, the clean latent x₀, or v = √ᾱ·ε − √(1 − ᾱ)·x₀. */
export type PredictionType = (typeof predictionTypes)[number];
export const predictionTypes = ["epsilon", "v_prediction", "sample"] as const;

/** x₀ = x0FromX·x + x0FromM·m and ε = epsFromX·x + epsFromM·m, for latent x and model output m. */
export interface Prediction {
  readonly x0FromX: number;
  readonly x0FromM: number;
  readonly epsFromX: number;
  readonly epsFromM: number;
}

/**
 * Solves x = √ᾱ·x₀ + √(1 − ᾱ)·ε for x₀ and ε, given the one the model predicts.
 * @throws FemoError E_OPTION if x₀ is to come from ε where ᾱ = 0
 */
export function prediction(type: PredictionType, alphaBar: number, timestep: number): Prediction {
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
