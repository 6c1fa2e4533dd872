export {
  type AdaptedFemoOptions,
  adaptedFemo,
  type BetaScope,
  type BiasCorrection,
  betaScopes,
  biasCorrections,
  type FemoOptions,
  femo,
  type MomentumSeed,
  momentumSeeds,
} from "./femo.js";
export { foca } from "./foca.js";
export { type Forecaster, type FullStep, type Gram, type MemoryScope, measuredError, stateSize } from "./forecaster.js";
export { hiCache } from "./hi-cache.js";
export { newton } from "./newton.js";
export { fora, taylorSeer } from "./taylor.js";
