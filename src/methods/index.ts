export { adaptedFemo } from "./adapted-femo.js";
export { calibrated } from "./calibrated.js";
export { chipmunk } from "./chipmunk.js";
export { type CacheFacts, type ChosenCache, chosenCache, chosenSolver } from "./choice.js";
export { dbCache } from "./db-cache.js";
export { deepCache } from "./deep-cache.js";
export { deltaDit } from "./delta-dit.js";
export { duca } from "./duca.js";
export { femo } from "./femo.js";
export { firstBlock } from "./first-block.js";
export { foca } from "./foca.js";
export { fora } from "./fora.js";
export { hiCache } from "./hi-cache.js";
export { hindsight } from "./hindsight.js";
export { magCache } from "./mag-cache.js";
export {
  type At,
  type Knob,
  type Look,
  type Method,
  type ModelFacts,
  type Outcome,
  type Policy,
  plannedKinds,
  type TokenChoice,
  tokenCount,
  X0,
} from "./method.js";
export { newton } from "./newton.js";
export { uncachedMethod } from "./none.js";
export { type PlacedSchedule, type Sampling, schedulesFromJson } from "./placement.js";
export { presetsFromJson } from "./presets.js";
export {
  type CacheQuality,
  type MeasuredQuality,
  type Qualities,
  type QualityName,
  qualitiesFromJson,
  qualityNames,
} from "./qualities.js";
export {
  type CacheMethod,
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  cacheLevels,
  cacheMethods,
  cacheSettings,
  defaultPresets,
  knobOf,
  methodOf,
  methodTitle,
} from "./settings.js";
export { type SolverTarget, solverTargets } from "./solver-targets.js";
export {
  type FittedSolver,
  type MeasuredSolver,
  type PsnrOfImages,
  type SolverInPlace,
  solverInPlace,
  solversFromJson,
} from "./solvers.js";
export { taylorSeer } from "./taylor-seer.js";
export { teaCache } from "./tea-cache.js";
export { type LinearSampling, toMultistep } from "./to-multistep.js";
export { toca } from "./toca.js";
