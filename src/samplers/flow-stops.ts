import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import type { ChosenSteps } from "./definition.js";
import type { Stops } from "./dpm-steps.js";
import {
  type BaseLevels,
  type FlowConfig,
  type FlowOptions,
  flowKeys,
  flowOptions,
  flowSchedule,
  modelTimes,
} from "./flow-schedule.js";
import { flowLevel } from "./levels.js";
import { flowPrediction, type Prediction, prediction } from "./prediction.js";
import { linspace } from "./timesteps.js";

/** Where on a flow a multistep solver stops. */
export interface FlowStops extends Stops {
  /** What the model gives at each stop.  [n] */
  readonly predictions: readonly Prediction[];
  readonly spacing: string;
}

/**
 * The stops of diffusers' multistep solvers with `use_flow_sigmas`: with "linspace" spacing their own, whose timesteps are cut
 * off to whole ones of T, otherwise those of Euler's method.
 *
 * @throws FemoError E_OPTION as `flowSchedule`
 */
export function flowStops(config: FlowConfig, chosen: ChosenSteps): FlowStops {
  const schedule = flowSchedule(flowOptions(config, chosen), linspaced);
  const levels = schedule.sigmas.map(flowLevel);
  const timesteps = modelTimes(schedule);
  const predictions = levels.slice(0, -1).map((level, i) => prediction(flowPrediction, level, timesteps[i] as number));
  return { timesteps, levels, predictions, spacing: schedule.spacing };
}

/** As diffusers has them: even from the first timestep of training but one to the image, which is left out. */
function linspaced({ numInferenceSteps: n, numTrainTimesteps: T }: FlowOptions): BaseLevels {
  const sigmas = linspace(1, 1 / T, n + 1).map((alpha) => 1 - alpha);
  return { sigmas: sigmas.reverse().slice(0, n), round: (value) => value, whole: true };
}

/** The keys of such a solver's config; its `flow_shift` is `shift`. */
export const flowStopsKeys = {
  ...flowKeys,
  flow_shift: z.number().check(z.gt(0)),
  prediction_type: z.literal(flowPrediction),
};

/** What it must say, as far as it says it. */
export const flowStopsFixed = { use_karras_sigmas: z.literal(false), time_shift_type: z.literal("exponential") };

/** Settings from those keys. @throws FemoError E_CONFIG if it does not say that it is of a flow */
export function flowStopsFromKeys({ flowShift, predictionType, ...settings }: Readonly<Record<string, unknown>>) {
  if (predictionType !== undefined)
    return { ...settings, predictionType, ...(flowShift !== undefined && { shift: flowShift }) };
  throw new FemoError(
    "E_CONFIG",
    `scheduler config: prediction_type: found none, allowed beside use_flow_sigmas: "${flowPrediction}".`,
  );
}
