import * as z from "zod/mini";
import type { ChosenSteps, SamplerDefinition } from "./definition.js";
import {
  checkDpmSteps,
  type DpmStepsConfig,
  dpmSteps,
  dpmStepsDefaults,
  dpmStepsFixed,
  dpmStepsKeys,
} from "./dpm-steps.js";
import { type FlowConfig, flowDefaults, flowSpacings } from "./flow-schedule.js";
import { flowStops, flowStopsFixed, flowStopsFromKeys, flowStopsKeys } from "./flow-stops.js";
import type { Sampler } from "./sampler.js";

/** diffusers' `DPMSolverMultistepScheduler` config of a flow in camelCase; its `flow_shift` is `shift`. */
export interface FlowDpmSolverConfig extends FlowConfig, DpmStepsConfig {}

export const flowDpmSolverDefaults: Required<FlowDpmSolverConfig> = { ...flowDefaults, ...dpmStepsDefaults };

/**
 * DPM-Solver++(2M) for a flow, see {@link dpmSteps}; of order 1 it is Euler's method.
 *
 * With "linspace" spacing it reproduces diffusers' `DPMSolverMultistepScheduler` with `use_flow_sigmas`, see {@link flowStops},
 * except that coefficients are float64 (there float32). From σ = 1, where λ is −∞, the first two steps are of first order.
 *
 * @throws FemoError E_OPTION as {@link flowEuler}
 */
export function flowDpmSolver(config: FlowDpmSolverConfig, chosen: ChosenSteps): Sampler {
  const options = { ...dpmStepsDefaults, ...config };
  checkDpmSteps(options);
  const { predictions, spacing, ...stops } = flowStops(options, chosen);
  return { ...dpmSteps(options, stops, predictions), spacing, notes: [] };
}

/** DPM-Solver++(2M) for a flow. */
export const flowDpmSolverSampler: SamplerDefinition<"dpm-solver++", FlowDpmSolverConfig> = {
  name: "dpm-solver++",
  title: "DPM-Solver++",
  process: "flow",
  classes: ["DPMSolverMultistepScheduler"],
  isOwn: ({ use_flow_sigmas: flow }) => flow === true,
  keys: { ...flowStopsKeys, ...dpmStepsKeys },
  fixed: {
    ...dpmStepsFixed,
    ...flowStopsFixed,
    use_lu_lambdas: z.literal(false),
    final_sigmas_type: z.literal("zero"),
  },
  fromKeys: flowStopsFromKeys,
  spacings: flowSpacings,
  defaults: flowDpmSolverDefaults,
  create: flowDpmSolver,
};
