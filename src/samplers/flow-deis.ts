import * as z from "zod/mini";
import type { ChosenSteps, SamplerDefinition } from "./definition.js";
import {
  checkDeisSteps,
  type DeisStepsConfig,
  deisSteps,
  deisStepsDefaults,
  deisStepsFixed,
  deisStepsKeys,
} from "./deis.js";
import { type FlowConfig, flowDefaults, flowSpacings } from "./flow-schedule.js";
import { flowStops, flowStopsFixed, flowStopsFromKeys, flowStopsKeys } from "./flow-stops.js";
import type { Sampler } from "./sampler.js";

/** diffusers' `DEISMultistepScheduler` config of a flow in camelCase; its `flow_shift` is `shift`. */
export interface FlowDeisConfig extends FlowConfig, DeisStepsConfig {}

export const flowDeisDefaults: Required<FlowDeisConfig> = { ...flowDefaults, ...deisStepsDefaults };

/**
 * DEIS for a flow, see {@link deisSteps}; of order 1 it is Euler's method.
 *
 * With "linspace" spacing it reproduces diffusers' `DEISMultistepScheduler` with `use_flow_sigmas`, see {@link flowStops}, but for
 * the last step: it lands on the image, where diffusers' has no length and leaves noise in it. Coefficients are float64 (there
 * float32). From σ = 1 the first two steps are of first order.
 *
 * @throws FemoError E_OPTION as `flowEuler`
 */
export function flowDeis(config: FlowDeisConfig, chosen: ChosenSteps): Sampler {
  const options = { ...deisStepsDefaults, ...config };
  checkDeisSteps(options);
  const { predictions, spacing, ...stops } = flowStops(options, chosen);
  return { ...deisSteps(options, stops, predictions), spacing, notes: [] };
}

/** DEIS for a flow. */
export const flowDeisSampler: SamplerDefinition<"deis", FlowDeisConfig> = {
  name: "deis",
  title: "DEIS",
  process: "flow",
  classes: ["DEISMultistepScheduler"],
  isOwn: ({ use_flow_sigmas: flow }) => flow === true,
  keys: { ...flowStopsKeys, ...deisStepsKeys },
  fixed: {
    ...deisStepsFixed,
    ...flowStopsFixed,
    use_exponential_sigmas: z.literal(false),
    use_beta_sigmas: z.literal(false),
  },
  fromKeys: flowStopsFromKeys,
  spacings: flowSpacings,
  defaults: flowDeisDefaults,
  create: flowDeis,
};
