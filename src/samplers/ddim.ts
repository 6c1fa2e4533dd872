import * as z from "zod/mini";
import { conversions } from "./conversions.js";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { diffusionLevel, type Leap } from "./levels.js";
import { demandOf } from "./options.js";
import { prediction } from "./prediction.js";
import { checkedNoise, checkedStep, type Sampler } from "./sampler.js";
import { checkSpacing, sampledTimesteps, startNotes, strideSpacings, type TimestepSpacing } from "./timesteps.js";
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
  /** Fresh noise, as a share of what ancestral sampling draws (eq. 16), from 0 to 1; no key of a file. Default 0: none. */
  readonly eta?: number;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** All but "lambda". Default "leading". */
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
  eta: 0,
  stepsOffset: 0,
  timestepSpacing: "leading",
};

/**
 * DDIM (arXiv 2010.02502, eq. 12): x ← √ᾱ′·x₀ + √(1 − ᾱ′)·ε, where x₀ and ε follow from x and the model output, and ᾱ′
 * belongs to the timestep the step lands on. With η above 0 some of ε gives way to fresh noise z of the same strength:
 * √(1 − ᾱ′ − s²)·ε + s·z, at every step.
 *
 * Reproduces diffusers' `DDIMScheduler`, except that β, ᾱ and all coefficients are float64 (there float32). As there, a
 * step lands on t − ⌊T/n⌋, which with "linspace" and "trailing" spacing may lie beside the next timestep of the list: then
 * noise stays in the image, and `notes` says so. "leading" and "dit" land on their own list for every n.
 *
 * @throws FemoError E_OPTION if a value is outside its range, if an offset leads past timestep T − 1, if "leading" spacing
 *   is to have more than T/2 steps and fewer than T, or if ε is to be predicted at a timestep without signal (ᾱ = 0),
 *   where x₀ cannot be recovered from it
 */
export function ddim(config: DdimConfig): Sampler {
  const options = { ...ddimDefaults, ...config };
  checkTrainingChain(options);
  checkSpacing(options, strideSpacings);
  const demand = demandOf(options);
  demand(options.clipSampleRange > 0, "clipSampleRange", "a positive number");
  demand(options.eta >= 0 && options.eta <= 1, "eta", "a number from 0 to 1");
  const timesteps = sampledTimesteps(options); // [n]
  const leaps = leapsOf(options, timesteps); // [n]
  const steps = leaps.map(({ from, to }, i) => ({
    predict: prediction(options.predictionType, from, timesteps[i] as number),
    x0: to.signal,
    ...noiseWeights({ from, to }, options.eta),
  }));
  const bound = options.clipSample ? options.clipSampleRange : Number.POSITIVE_INFINITY;
  return {
    name: "ddim",
    spacing: options.timestepSpacing,
    timesteps,
    leaps,
    initNoiseSigma: 1,
    notes: [...startNotes(options), ...landingNotes(options, leaps)],
    inputScale: () => 1,
    position: (i) => timesteps.length - 1 - i,
    ...(options.eta > 0 && { draws: (i: number) => i >= 0 && i < timesteps.length }),
    step(i, state, modelOutput, noise) {
      const { predict, x0: x0Scale, eps: epsScale, fresh } = checkedStep(steps, i, state, modelOutput);
      const { latent } = state;
      const z = options.eta > 0 ? checkedNoise(i, state, noise) : undefined;
      const next = new Float32Array(latent.length);
      for (let k = 0; k < next.length; k++) {
        const x = latent[k] as number;
        const m = modelOutput[k] as number;
        const x0 = Math.min(Math.max(predict.x0FromX * x + predict.x0FromM * m, -bound), bound);
        const eps = predict.epsFromX * x + predict.epsFromM * m; // not derived again from a clipped x₀, as in diffusers
        const mean = x0Scale * x0 + epsScale * eps;
        next[k] = z ? mean + fresh * (z[k] as number) : mean;
      }
      return { latent: next };
    },
    ...conversions(steps.map(({ predict }) => predict)),
  };
}

/** Of ε and of fresh noise. */
function noiseWeights({ from, to }: Leap, eta: number): { readonly eps: number; readonly fresh: number } {
  if (eta === 0) return { eps: to.noise, fresh: 0 };
  const drawn = (to.noiseVariance / from.noiseVariance) * (1 - from.signalVariance / to.signalVariance);
  const variance = eta ** 2 * Math.max(0, drawn);
  return { eps: Math.sqrt(Math.max(0, to.noiseVariance - variance)), fresh: Math.sqrt(variance) };
}

function leapsOf(options: Required<DdimConfig>, timesteps: readonly number[]): Leap[] {
  const { numTrainTimesteps: T, numInferenceSteps: n, timestepSpacing, setAlphaToOne } = options;
  const alphaBar = cumulativeAlphas(options); // [T]
  const dit = timestepSpacing === "dit";
  const end = dit || setAlphaToOne ? 1 : (alphaBar[0] as number);
  return timesteps.map((timestep, i) => {
    const landing = dit ? (timesteps[i + 1] ?? -1) : timestep - Math.floor(T / n);
    const to = landing < 0 ? end : (alphaBar[landing] as number);
    return { from: diffusionLevel(alphaBar[timestep] as number), to: diffusionLevel(to) };
  });
}

/** Noise in the image, as a share of the noise at the start, that is worth a word: images in −1 … 1 lose 40 dB by it. */
const NOTICED = 0.02;

/** A sentence if steps land so far beside the list that noise stays in the image. */
function landingNotes({ timestepSpacing, numInferenceSteps }: Required<DdimConfig>, leaps: readonly Leap[]): string[] {
  const left = noiseLeft(leaps);
  if (!(left > NOTICED)) return [];
  return [
    `DDIM with "${timestepSpacing}" spacing of ${numInferenceSteps} steps lands beside its own list of timesteps, as in ` +
      `diffusers: ${(100 * left).toFixed(0)} % of the noise stays in the image. "dit" spacing lands on its list.`,
  ];
}

/** What the last x₀ of an empty image has of unit noise that the model knows, but takes to be as strong as its timestep says. */
function noiseLeft(leaps: readonly Leap[]): number {
  let x = leaps[0]?.from.noise ?? 0;
  let x0 = 0;
  for (const { from, to } of leaps) {
    x0 = from.signal === 0 ? 0 : (x - from.noise) / from.signal;
    x = to.signal * x0 + to.noise;
  }
  return Math.abs(x0);
}

/** DDIM. */
export const ddimSampler: SamplerDefinition<"ddim", Omit<DdimConfig, "numInferenceSteps">> = {
  name: "ddim",
  title: "DDIM",
  process: "diffusion",
  spacings: strideSpacings,
  classes: ["DDIMScheduler"],
  keys: sharedKeys,
  fixed: { thresholding: z.literal(false) },
  defaults: ddimDefaults,
  create: (settings, chosen) => ddim({ ...settings, ...chosen }),
};
