export { type DdimConfig, ddim, ddimDefaults } from "./ddim.js";
export {
  type DpmSolverConfig,
  dpmSolver,
  dpmSolverDefaults,
  type FinalSigmasType,
  type SolverType,
} from "./dpm-solver.js";
export { seedAfter, TorchGenerator } from "./noise.js";
export type { PredictionType } from "./prediction.js";
export type { Sampler, SamplerState } from "./sampler.js";
export { createSampler, ditScheduler, type SamplerChoice } from "./scheduler.js";
export { schedulerFromConfig } from "./scheduler-config.js";
export { type SamplerName, type SchedulerConfig, samplerNames, samplerTitle } from "./table.js";
export { roundHalfEven, type TimestepSpacing, timestepSpacings } from "./timesteps.js";
export type { BetaSchedule } from "./training-chain.js";
