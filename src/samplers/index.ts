export { type DdimConfig, ddim, ddimDefaults } from "./ddim.js";
export { type DdpmConfig, ddpm, ddpmDefaults } from "./ddpm.js";
export { type Process, processOf } from "./definition.js";
export { type DeisConfig, deis, deisDefaults } from "./deis.js";
export { type DpmSolverConfig, dpmSolver, dpmSolverDefaults } from "./dpm-solver.js";
export { type DpmSolverSdeConfig, dpmSolverSde, dpmSolverSdeDefaults } from "./dpm-solver-sde.js";
export type { SolverType } from "./dpm-steps.js";
export { type EulerConfig, euler, eulerDefaults } from "./euler.js";
export { type EulerAncestralConfig, eulerAncestral, eulerAncestralDefaults } from "./euler-ancestral.js";
export { type FlowDeisConfig, flowDeis, flowDeisDefaults } from "./flow-deis.js";
export { type FlowDpmSolverConfig, flowDpmSolver, flowDpmSolverDefaults } from "./flow-dpm-solver.js";
export { flowEuler } from "./flow-euler.js";
export { type FlowMultistepConfig, flowMultistep } from "./flow-multistep.js";
export { type FlowConfig, type FlowSpacing, flowDefaults } from "./flow-schedule.js";
export { type LcmConfig, lcm, lcmDefaults } from "./lcm.js";
export { levelTimesteps } from "./level-timesteps.js";
export { isSameLevel, type Leap, type Level, straightWeights } from "./levels.js";
export {
  type MultistepConfig,
  type MultistepSolver,
  multistep,
  multistepDefaults,
  multistepFields,
  multistepSolver,
} from "./multistep.js";
export { seedAfter, TorchGenerator } from "./noise.js";
export { type PndmConfig, pndm, pndmDefaults } from "./pndm.js";
export { type FlowPredictionType, flowPrediction, type PredictionType } from "./prediction.js";
export { isStochastic, noised, type Sampler, type SamplerState, sampleRange } from "./sampler.js";
export { chosenOver, createSampler, ditScheduler, type SamplerChoice } from "./scheduler.js";
export { schedulerFromConfig } from "./scheduler-config.js";
export type { FinalSigmasType } from "./solver-stops.js";
export {
  type NamedSampler,
  namedSamplers,
  ownSteps,
  type SamplerName,
  type SamplerOption,
  type SamplerSettings,
  type SamplerWithSettings,
  type SchedulerConfig,
  samplersOf,
  samplerTitle,
  settingsOf,
} from "./table.js";
export { roundHalfEven, type TimestepSpacing, timestepSpacings } from "./timesteps.js";
export { type BetaSchedule, trainingChainDefaults } from "./training-chain.js";
export { type UniPcConfig, uniPc, uniPcDefaults } from "./unipc.js";
