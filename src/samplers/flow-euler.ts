import * as z from "zod/mini";
import { conversions } from "./conversions.js";
import type { ChosenSteps, SamplerDefinition } from "./definition.js";
import {
  type BaseLevels,
  type FlowConfig,
  type FlowOptions,
  flowDefaults,
  flowKeys,
  flowOptions,
  flowSchedule,
  flowSpacings,
  modelTimes,
  shiftedBy,
  timeShiftTypes,
} from "./flow-schedule.js";
import { flowLevel } from "./levels.js";
import { flowPrediction, prediction } from "./prediction.js";
import { checkedStep, type Sampler } from "./sampler.js";
import { oneConversion } from "./sigmas.js";
import { linspace } from "./timesteps.js";

/**
 * Euler's method on dx/dσ = v: x ← x + (σ′ − σ)·v, with v = ε − x₀ what the model of a flow gives.
 *
 * Reproduces diffusers' `FlowMatchEulerDiscreteScheduler`, levels, timesteps and steps to the bit, without its stochastic
 * sampling and inverted levels. Where neither a spacing nor `sigmas` are given the static shift is applied twice, as there.
 *
 * @throws FemoError E_OPTION if a value is outside its range, if shifting is dynamic and imageTokens is not given, or if
 *   levels do not fall from at most 1 to above 0
 */
export function flowEuler(config: FlowConfig, chosen: ChosenSteps): Sampler {
  const schedule = flowSchedule(flowOptions(config, chosen), linspaced);
  const timesteps = modelTimes(schedule);
  const steps = timesteps.map((t, i) => {
    const [from, to] = schedule.sigmas.slice(i, i + 2) as [number, number];
    const leap = { from: flowLevel(from), to: flowLevel(to) };
    return { leap, predict: prediction(flowPrediction, leap.from, t), length: Math.fround(to - from) };
  });
  return {
    name: "euler",
    spacing: schedule.spacing,
    timesteps,
    leaps: steps.map(({ leap }) => leap),
    initNoiseSigma: 1,
    notes: [],
    inputScale: () => 1,
    position: (i) => timesteps.length - 1 - i,
    step(i, state, modelOutput) {
      const { length } = checkedStep(steps, i, state, modelOutput);
      return { latent: state.latent.map((x, k) => x + Math.fround(length * (modelOutput[k] as number))) };
    },
    ...conversions(steps.map(({ predict }) => predict)),
  };
}

/** From the first to the last timestep of training, which a static shift has moved once already. */
function linspaced({ numInferenceSteps: n, numTrainTimesteps: T, useDynamicShifting, shift }: FlowOptions): BaseLevels {
  const end = (k: number): number => {
    const sigma = Math.fround(k / T);
    return T * (useDynamicShifting ? sigma : shiftedBy(shift, sigma, Math.fround));
  };
  return { sigmas: linspace(end(T), end(1), n).map((t) => t / T), round: (value) => value };
}

/** Euler's method for a flow. */
export const flowEulerSampler: SamplerDefinition<"euler", FlowConfig> = {
  name: "euler",
  title: "Euler",
  process: "flow",
  classes: ["FlowMatchEulerDiscreteScheduler"],
  keys: {
    ...flowKeys,
    shift: z.number().check(z.gt(0)),
    time_shift_type: z.enum(timeShiftTypes),
    shift_terminal: z.nullable(z.number().check(z.minimum(0), z.lt(1))),
    use_karras_sigmas: z.boolean(),
    use_exponential_sigmas: z.boolean(),
    use_beta_sigmas: z.boolean(),
  },
  fixed: { invert_sigmas: z.literal(false), stochastic_sampling: z.literal(false) },
  fromKeys: (settings) => ({ ...oneConversion(settings), predictionType: flowPrediction }),
  spacings: flowSpacings,
  defaults: flowDefaults,
  create: flowEuler,
};
