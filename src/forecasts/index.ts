export {
  type AdaptedFemoOptions,
  adaptedFemo,
  type BiasCorrection,
  biasCorrections,
  type FemoOptions,
  type FemoSeed,
  femo,
  femoSeeds,
} from "./femo.js";
export { type Forecaster, type FullStep, type Gram, measuredError } from "./forecaster.js";
export { newton } from "./newton.js";
export { fora, taylorSeer } from "./taylor.js";
