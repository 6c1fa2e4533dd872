import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { conversions } from "./conversions.js";
import { type SamplerDefinition, sharedKeys } from "./definition.js";
import { diffusionLevel, type Leap } from "./levels.js";
import { demandOf } from "./options.js";
import { type Prediction, prediction } from "./prediction.js";
import { checkedStep, type Sampler } from "./sampler.js";
import { checkSpacing, sampledTimesteps, startNotes, type TimestepSpacing } from "./timesteps.js";
import {
  checkTrainingChain,
  cumulativeAlphas,
  type TrainingChainConfig,
  trainingChainDefaults,
} from "./training-chain.js";

/** Spacings that PNDM has. */
const pndmSpacings = ["leading", "trailing", "linspace"] as const;

/** diffusers' `PNDMScheduler` config with `skip_prk_steps` in camelCase, plus the number of steps. Defaults are diffusers' too. */
export interface PndmConfig extends TrainingChainConfig {
  /** Steps n, 1 … numTrainTimesteps; the model is called once more if there are two or more. */
  readonly numInferenceSteps: number;
  /** "epsilon" or "v_prediction". Default "epsilon". */
  readonly predictionType?: "epsilon" | "v_prediction";
  /** Behind timestep 0 ᾱ is 1 (true) or that of timestep 0 (false). Default false. */
  readonly setAlphaToOne?: boolean;
  /** Added to every timestep of "leading" spacing. Default 0. */
  readonly stepsOffset?: number;
  /** "leading", "trailing" or "linspace". Default "leading". */
  readonly timestepSpacing?: TimestepSpacing;
}

export const pndmDefaults: Required<Omit<PndmConfig, "numInferenceSteps">> = {
  ...trainingChainDefaults,
  predictionType: "epsilon",
  setAlphaToOne: false,
  stepsOffset: 0,
  timestepSpacing: "leading",
};

/** Weights of the model's outputs, newest first, by how many there are (arXiv 2202.09778, eq. 12 and its starts). */
const adamsBashforth = [
  [1],
  [3 / 2, -1 / 2],
  [23 / 12, -16 / 12, 5 / 12],
  [55 / 24, -59 / 24, 37 / 24, -9 / 24],
] as const;

/** x′ = `x`·x + `eps`·ε. */
interface Straight {
  readonly predict: Prediction;
  readonly x: number;
  readonly eps: number;
}

/**
 * PNDM without its Runge–Kutta steps, also known as PLMS, the sampler of Stable Diffusion 1 (arXiv 2202.09778, eq. 9): DDIM on
 * a combination of the last four outputs. The second call repeats the first step with the mean of both outputs, so that the
 * second timestep comes twice and n steps call the model n + 1 times.
 *
 * Reproduces diffusers' `PNDMScheduler`, except that β, ᾱ and all coefficients are float64 (there float32). As there, a run
 * that begins inside counts its calls anew: its second one repeats a step of one stride to where it is.
 *
 * @throws FemoError E_OPTION if a value is outside its range, if an offset leads past timestep T − 1, or if a timestep has no
 *   signal
 */
export function pndm(config: PndmConfig): Sampler {
  const options = { ...pndmDefaults, ...config };
  check(options);
  const alphaBar = cumulativeAlphas(options); // [T]
  const { numInferenceSteps: n, numTrainTimesteps: T } = options;
  const spaced = sampledTimesteps(options); // [n]
  const timesteps = spaced.toSpliced(1, 0, ...spaced.slice(1, 2)); // [n + 1]
  const stride = Math.floor(T / n);
  const end = options.setAlphaToOne ? 1 : (alphaBar[0] as number);
  const levelAt = (t: number) => diffusionLevel(t < 0 ? end : (alphaBar[Math.min(t, T - 1)] as number));
  const leapFrom = (t: number): Leap => ({ from: levelAt(t), to: levelAt(t - stride) });
  const forth = timesteps.map((t) => straight(options, leapFrom(t), t));
  const again = timesteps.map((t) => straight(options, leapFrom(t + stride), t + stride));
  const here = (t: number): Leap => ({ from: levelAt(t), to: levelAt(t) });
  return {
    name: "pndm",
    spacing: options.timestepSpacing,
    timesteps,
    leaps: timesteps.map((t, i) => (i === 1 ? here(t) : leapFrom(t))),
    initNoiseSigma: 1,
    notes: startNotes(options),
    inputScale: () => 1,
    position: (i) => timesteps.length - 1 - i,
    step(i, state, modelOutput) {
      const own = checkedStep(forth, i, state, modelOutput);
      const { latent, history = [], start } = state;
      if (start) {
        const mean = combined([modelOutput, ...history], [1 / 2, 1 / 2]);
        return { latent: moved(again[i] as Straight, start, mean), history };
      }
      const outputs = [modelOutput.slice(), ...history].slice(0, adamsBashforth.length);
      const next = moved(own, latent, combined(outputs, adamsBashforth[outputs.length - 1] as readonly number[]));
      return { latent: next, history: outputs, ...(history.length === 0 && { start: latent }) };
    },
    ...conversions(forth.map(({ predict }) => predict)),
  };
}

function straight({ predictionType }: Required<PndmConfig>, { from, to }: Leap, timestep: number): Straight {
  // The difference of ᾱ keeps the digits that ε would lose by way of x₀.
  const denominator = from.signal * (from.signal * to.noise + to.signal * from.noise);
  return {
    predict: prediction(predictionType, from, timestep),
    x: to.signal / from.signal,
    eps: denominator === 0 ? 0 : -(to.signalVariance - from.signalVariance) / denominator,
  };
}

function moved({ predict, x: xScale, eps: epsScale }: Straight, latent: Float32Array, output: Float64Array) {
  return latent.map(
    (x, k) => xScale * x + epsScale * (predict.epsFromX * x + predict.epsFromM * (output[k] as number)),
  );
}

function combined(outputs: readonly Float32Array[], weights: readonly number[]): Float64Array {
  const sum = new Float64Array(outputs[0]?.length ?? 0);
  outputs.forEach((output, j) => {
    const weight = weights[j] as number;
    for (let k = 0; k < sum.length; k++) sum[k] = (sum[k] as number) + weight * (output[k] as number);
  });
  return sum;
}

function check(options: Required<PndmConfig>): asserts options is Required<PndmConfig> & {
  readonly timestepSpacing: (typeof pndmSpacings)[number];
} {
  checkTrainingChain(options);
  checkSpacing(options, pndmSpacings);
  const demand = demandOf(options);
  const isKnown = options.predictionType === "epsilon" || options.predictionType === "v_prediction";
  demand(isKnown, "predictionType", "epsilon or v_prediction");
  demand(!options.rescaleBetasZeroSnr, "rescaleBetasZeroSnr", "false, as PNDM divides by the signal of every timestep");
}

/** PNDM without its Runge–Kutta steps. */
export const pndmSampler: SamplerDefinition<"pndm", Omit<PndmConfig, "numInferenceSteps">> = {
  name: "pndm",
  title: "PNDM",
  process: "diffusion",
  classes: ["PNDMScheduler"],
  keys: { ...sharedKeys, prediction_type: z.enum(["epsilon", "v_prediction"]), skip_prk_steps: z.boolean() },
  fixed: {},
  fromKeys({ skipPrkSteps, ...settings }) {
    if (skipPrkSteps === true) return settings;
    throw new FemoError(
      "E_CONFIG",
      `scheduler config: skip_prk_steps: found ${skipPrkSteps ?? "none, which is false"}, allowed: true.`,
    );
  },
  spacings: pndmSpacings,
  defaults: pndmDefaults,
  create: (settings, chosen) => pndm({ ...settings, ...chosen }),
};
