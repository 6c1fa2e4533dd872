import { FemoError } from "../errors.js";
import { type FlowConfig, flowDefaults, MODEL_TIME } from "./flow-schedule.js";
import { flowLevel, leapsThrough } from "./levels.js";
import { type MultistepSolver, multistepSolver, solverDefinition, tabled } from "./multistep.js";
import { flowPrediction, prediction } from "./prediction.js";
import type { Sampler } from "./sampler.js";

/** A {@link MultistepSolver} for a flow; of the model's schedule it needs the number of training timesteps. */
export interface FlowMultistepConfig extends Omit<MultistepSolver, "sampler">, Pick<FlowConfig, "predictionType"> {
  readonly numTrainTimesteps?: number;
}

/**
 * {@link tabled} for a flow: σ of a step is what the model is told, unless the solver has levels of its own, and the last step
 * lands on no noise.
 * @throws FemoError E_OPTION if a value is outside its range or the table does not fit
 */
export function flowMultistep(config: FlowMultistepConfig): Sampler {
  const {
    timesteps,
    levelTimesteps,
    table,
    finalAlphaBar,
    numTrainTimesteps = flowDefaults.numTrainTimesteps,
  } = config;
  const solver = multistepSolver({ sampler: "multistep", timesteps, levelTimesteps, table, finalAlphaBar });
  const sigmasOf = (name: string, list: readonly number[]): number[] =>
    list.map((t) => {
      const sigma = Math.fround((t * MODEL_TIME) / numTrainTimesteps); // timesteps are float32
      if (sigma > 0 && sigma <= 1) return sigma;
      throw new FemoError(
        "E_OPTION",
        `${name}: expected numbers from 1 to above 0, as the model is a flow, found ${t}.`,
      );
    });
  const told = sigmasOf("timesteps", timesteps);
  const sigmas = levelTimesteps === undefined ? told : sigmasOf("levelTimesteps", levelTimesteps);
  if (finalAlphaBar !== undefined) {
    throw new FemoError("E_OPTION", `finalAlphaBar: expected none, as the model is a flow, found ${finalAlphaBar}.`);
  }
  const leaps = leapsThrough([...sigmas, 0].map(flowLevel));
  return tabled(
    solver,
    leaps,
    leaps.map(({ from }, i) => prediction(flowPrediction, from, timesteps[i] as number)),
  );
}

export const flowMultistepSampler = solverDefinition<FlowMultistepConfig>("flow", flowMultistep);
