export { adaptedFemo } from "./adapted-femo.js";
export { femo } from "./femo.js";
export { fora } from "./fora.js";
export {
  type At,
  type Knob,
  type Look,
  type Method,
  type ModelFacts,
  type Outcome,
  type Policy,
  plannedKinds,
} from "./method.js";
export { newton } from "./newton.js";
export { presetsFromJson } from "./presets.js";
export {
  type CacheMethod,
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  cacheMethods,
  cacheSettings,
  defaultPresets,
  knobOf,
  methodOf,
  methodTitle,
} from "./settings.js";
export { taylorSeer } from "./taylor-seer.js";
