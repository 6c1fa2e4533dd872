export { type DdimConfig, ddim, ddimDefaults } from "./ddim.js";
export {
  type DpmSolverConfig,
  dpmSolver,
  dpmSolverDefaults,
  type FinalSigmasType,
  type SolverType,
} from "./dpm-solver.js";
export {
  type MultistepConfig,
  type MultistepSolver,
  multistep,
  multistepDefaults,
  multistepSolver,
} from "./multistep.js";
export { seedAfter, TorchGenerator } from "./noise.js";
export type { PredictionType } from "./prediction.js";
export type { Leap, Sampler, SamplerState } from "./sampler.js";
export { createSampler, ditScheduler, type SamplerChoice } from "./scheduler.js";
export { schedulerFromConfig } from "./scheduler-config.js";
export {
  type NamedSampler,
  namedSamplers,
  ownSteps,
  type SamplerName,
  type SamplerOption,
  type SchedulerConfig,
  samplerTitle,
} from "./table.js";
export { roundHalfEven, type TimestepSpacing, timestepSpacings } from "./timesteps.js";
export type { BetaSchedule } from "./training-chain.js";
