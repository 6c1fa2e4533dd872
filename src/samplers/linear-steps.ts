import { conversions } from "./conversions.js";
import type { Prediction } from "./prediction.js";
import { checkedNoise, checkedStep, type Sampler } from "./sampler.js";

/**
 * x′ = `x`·x + `feature`·f + `output`·m + Σ_k `changes`[k]·(f − f of k + 1 steps before) + `noise`·z, where m is the model's
 * output, f what it means, and z a standard normal sample.
 */
export interface LinearStep {
  readonly x: number;
  readonly feature: number;
  /** Default 0. */
  readonly output?: number;
  readonly changes?: readonly number[];
  /** Left out of a step that draws none. */
  readonly noise?: number;
}

/** A sampler as the numbers in its steps. */
export interface LinearSteps extends Pick<Sampler, "name" | "timesteps" | "leaps"> {
  /** What the model gives at each step.  [n] */
  readonly predictions: readonly Prediction[];
  /** Of each step, by how many features of the run before it are known: 0, 1 … as many as it uses.  [n][known + 1] */
  readonly steps: readonly (readonly LinearStep[])[];
  /** What f is, x₀ or ε. Default "x0". */
  readonly of?: "x0" | "eps";
  /** f is clipped to ± this. Default: it is not. */
  readonly bound?: number;
  /** Default 1. */
  readonly initNoiseSigma?: number;
  /** Default: 1 at all steps. */
  readonly inputScale?: (i: number) => number;
}

/** A sampler whose steps are linear in the latent, what the model gave so far, and noise. */
export function linearSampler(sampler: LinearSteps): Omit<Sampler, "spacing" | "notes"> {
  const { name, timesteps, leaps, predictions, steps, of = "x0", bound = Number.POSITIVE_INFINITY } = sampler;
  const { initNoiseSigma = 1, inputScale = () => 1 } = sampler;
  const kept = Math.max(...steps.map((rows) => rows.length)) - 1;
  const draws = (i: number): boolean => steps[i]?.[0]?.noise !== undefined;
  return {
    name,
    timesteps,
    leaps,
    initNoiseSigma,
    inputScale,
    position: (i) => timesteps.length - 1 - i,
    ...(steps.some((_, i) => draws(i)) && { draws }),
    step(i, state, modelOutput, noise) {
      const rows = checkedStep(steps, i, state, modelOutput);
      const { latent, history = [] } = state;
      const {
        x: xScale,
        feature: fScale,
        output: mScale,
        changes = [],
        noise: noiseScale,
      } = rows[Math.min(history.length, rows.length - 1)] as LinearStep;
      const z = noiseScale === undefined ? undefined : checkedNoise(i, state, noise);
      const { fromX, fromM } = featureOf(predictions[i] as Prediction, of);
      const next = new Float32Array(latent.length);
      const features = new Float32Array(latent.length);
      for (let k = 0; k < next.length; k++) {
        const x = latent[k] as number;
        const m = modelOutput[k] as number;
        const f = Math.min(Math.max(fromX * x + fromM * m, -bound), bound);
        features[k] = f;
        let sum = xScale * x + fScale * f;
        if (mScale !== undefined) sum += mScale * m;
        for (let j = 0; j < changes.length; j++) {
          sum += (changes[j] as number) * (f - ((history[j] as Float32Array)[k] as number));
        }
        next[k] = z && noiseScale !== undefined ? sum + noiseScale * (z[k] as number) : sum;
      }
      return kept === 0 ? { latent: next } : { latent: next, history: [features, ...history].slice(0, kept) };
    },
    ...conversions(predictions),
  };
}

const featureOf = (prediction: Prediction, of: "x0" | "eps"): { readonly fromX: number; readonly fromM: number } =>
  of === "x0"
    ? { fromX: prediction.x0FromX, fromM: prediction.x0FromM }
    : { fromX: prediction.epsFromX, fromM: prediction.epsFromM };
