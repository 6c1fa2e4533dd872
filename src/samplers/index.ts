export {
  type BetaSchedule,
  type DdimConfig,
  type DdimSchedulerConfig,
  ddim,
  ddimDefaults,
  ditScheduler,
  type PredictionType,
  type TimestepSpacing,
} from "./ddim.js";
export { TorchGenerator } from "./noise.js";
export type { Sampler } from "./sampler.js";
export { schedulerFromConfig } from "./scheduler-config.js";
