import { FemoError } from "../errors.js";
import { type FlowConfig, flowDefaults, MODEL_TIME } from "./flow-schedule.js";
import { flowLevel, type Level } from "./levels.js";
import { type MultistepSolver, multistepSolver, solverDefinition, tabled } from "./multistep.js";
import { flowPrediction, prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";

/** A {@link MultistepSolver} for a flow; of the model's schedule it needs the number of training timesteps. */
export interface FlowMultistepConfig extends Omit<MultistepSolver, "sampler">, Pick<FlowConfig, "predictionType"> {
  readonly numTrainTimesteps?: number;
}

/**
 * {@link tabled} for a flow: σ of a step is what the model is told, and the last step lands on no noise.
 * @throws FemoError E_OPTION if a value is outside its range or the table does not fit
 */
export function flowMultistep(config: FlowMultistepConfig): Sampler {
  const { timesteps, table, finalAlphaBar, numTrainTimesteps = flowDefaults.numTrainTimesteps } = config;
  const solver = multistepSolver({ sampler: "multistep", timesteps, table, finalAlphaBar });
  const sigmas = timesteps.map((t) => Math.fround((t * MODEL_TIME) / numTrainTimesteps)); // timesteps are float32
  const foreign = sigmas.findIndex((sigma) => !(sigma > 0 && sigma <= 1));
  if (foreign !== -1) {
    throw new FemoError(
      "E_OPTION",
      `timesteps: expected numbers from 1 to above 0, as the model is a flow, found ${timesteps[foreign]}.`,
    );
  }
  if (finalAlphaBar !== undefined) {
    throw new FemoError("E_OPTION", `finalAlphaBar: expected none, as the model is a flow, found ${finalAlphaBar}.`);
  }
  const levels = [...sigmas, 0].map(flowLevel);
  const leaps = levels.slice(0, -1).map((from, i) => ({ from, to: levels[i + 1] as Level }));
  return tabled(
    solver,
    leaps,
    leaps.map(({ from }, i) => prediction(flowPrediction, from, timesteps[i] as number)),
  );
}

export const flowMultistepSampler = solverDefinition<FlowMultistepConfig>("flow", flowMultistep);
