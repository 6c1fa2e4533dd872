import * as z from "zod";
import { FemoError } from "../errors.js";
import type { ChosenSteps, SamplerDefinition } from "./definition.js";
import {
  checkDpmSteps,
  type DpmStepsConfig,
  dpmSteps,
  dpmStepsDefaults,
  dpmStepsFixed,
  dpmStepsKeys,
} from "./dpm-steps.js";
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
} from "./flow-schedule.js";
import { flowLevel } from "./levels.js";
import { flowPrediction, prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";
import { linspace } from "./timesteps.js";

/** diffusers' `DPMSolverMultistepScheduler` config of a flow in camelCase; its `flow_shift` is `shift`. */
export interface FlowDpmSolverConfig extends FlowConfig, DpmStepsConfig {}

export const flowDpmSolverDefaults: Required<FlowDpmSolverConfig> = { ...flowDefaults, ...dpmStepsDefaults };

/**
 * DPM-Solver++(2M) for a flow, see {@link dpmSteps}; of order 1 it is Euler's method.
 *
 * With "linspace" spacing it reproduces diffusers' `DPMSolverMultistepScheduler` with `use_flow_sigmas`, whose timesteps are
 * cut off to whole ones of T, except that coefficients are float64 (there float32). With "trailing" spacing or `sigmas` it
 * goes by the levels, and tells the model the timesteps, that Euler's method has. From σ = 1, where λ is −∞, the first two
 * steps are of first order.
 *
 * @throws FemoError E_OPTION as {@link flowEuler}
 */
export function flowDpmSolver(config: FlowDpmSolverConfig, chosen: ChosenSteps): Sampler {
  const options = { ...dpmStepsDefaults, ...flowOptions(config, chosen) };
  checkDpmSteps(options);
  const schedule = flowSchedule(options, linspaced);
  const levels = schedule.sigmas.map(flowLevel);
  const timesteps = modelTimes(schedule);
  const predictions = levels.slice(0, -1).map((level, i) => prediction(flowPrediction, level, timesteps[i] as number));
  return { ...dpmSteps(options, { timesteps, levels }, predictions), spacing: schedule.spacing, notes: [] };
}

/** As diffusers has them: even from the first timestep of training but one to the image, which is left out. */
function linspaced({ numInferenceSteps: n, numTrainTimesteps: T }: FlowOptions): BaseLevels {
  const sigmas = linspace(1, 1 / T, n + 1).map((alpha) => 1 - alpha);
  return { sigmas: sigmas.reverse().slice(0, n), round: (value) => value, whole: true };
}

/** DPM-Solver++(2M) for a flow. */
export const flowDpmSolverSampler: SamplerDefinition<"dpm-solver++", FlowDpmSolverConfig> = {
  name: "dpm-solver++",
  title: "DPM-Solver++",
  process: "flow",
  classes: ["DPMSolverMultistepScheduler"],
  isOwn: ({ use_flow_sigmas: flow }) => flow === true,
  keys: {
    ...flowKeys,
    ...dpmStepsKeys,
    flow_shift: z.number().gt(0),
    prediction_type: z.literal(flowPrediction),
  },
  fixed: {
    ...dpmStepsFixed,
    use_karras_sigmas: z.literal(false),
    use_lu_lambdas: z.literal(false),
    final_sigmas_type: z.literal("zero"),
    time_shift_type: z.literal("exponential"),
  },
  fromKeys({ flowShift, predictionType, ...settings }) {
    if (predictionType !== undefined)
      return { ...settings, predictionType, ...(flowShift !== undefined && { shift: flowShift }) };
    throw new FemoError(
      "E_CONFIG",
      `scheduler config: prediction_type: found none, allowed beside use_flow_sigmas: "${flowPrediction}".`,
    );
  },
  spacings: flowSpacings,
  create: flowDpmSolver,
};
