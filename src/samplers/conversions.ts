import { FemoError } from "../errors.js";
import type { Prediction } from "./prediction.js";
import { checkedStep, type Sampler } from "./sampler.js";

/** {@link Sampler.denoised} and {@link Sampler.modelOutput}, given what each step's model predicts.  [n] */
export function conversions(predictions: readonly Prediction[]): Pick<Sampler, "denoised" | "modelOutput"> {
  return {
    denoised(i, latent, modelOutput) {
      const { x0FromX, x0FromM } = checkedStep(predictions, i, { latent }, modelOutput);
      return latent.map((x, k) => x0FromX * x + x0FromM * (modelOutput[k] as number));
    },
    modelOutput(i, latent, denoised) {
      const { x0FromX, x0FromM } = checkedStep(predictions, i, { latent }, denoised, "a denoised latent");
      if (x0FromM === 0) {
        throw new FemoError(
          "E_OPTION",
          `step ${i}: without noise the denoised latent is the latent, whatever the model predicts: expected a step with some.`,
        );
      }
      return latent.map((x, k) => ((denoised[k] as number) - x0FromX * x) / x0FromM);
    },
  };
}
