import { FemoError } from "../errors.js";
import { isToBePlaced, type PlacedSchedule, placedFor, placeFullSteps, type Sampling } from "./placement.js";
import { type MeasuredQuality, type Qualities, type QualityName, qualityNames } from "./qualities.js";
import { type CacheOptions, type CachePresets, type CacheSettings, cacheSettings } from "./settings.js";
import { type FittedSolver, type SolverInPlace, solverInPlace } from "./solvers.js";

/** What is known of caching on a model. */
export interface CacheFacts {
  /** At which it can be cached. */
  readonly levels: readonly string[];
  readonly presets: CachePresets;
  readonly schedules: readonly PlacedSchedule[];
  readonly qualities: Qualities;
  readonly solvers: readonly FittedSolver[];
}

/** How a request samples, and what of that is not the model's own. */
export interface RequestedSampling extends Sampling {
  readonly samplerSettings?: object | undefined;
}

/** A choice of cache as it runs. */
export interface ChosenCache {
  readonly settings: CacheSettings;
  /** If it was chosen by quality: how good it was measured to be. */
  readonly quality?: { readonly name: QualityName; readonly measured: MeasuredQuality };
  /** What does not fit the measurement, a sentence each; for reports. */
  readonly notes: readonly string[];
}

const isQuality = (cache: unknown): cache is QualityName => qualityNames.some((name) => name === cache);

/**
 * A user's choice with every default filled in: a method, or a quality by name.
 * @throws FemoError E_OPTION naming each unknown or bad field, or if the model has no such quality or placement
 */
export function chosenCache(
  cache: CacheOptions | QualityName,
  { levels, presets, schedules, qualities, solvers }: CacheFacts,
  sampling: RequestedSampling,
): ChosenCache {
  if (!isQuality(cache)) {
    const settings = cacheSettings(cache, presets, levels);
    if (settings.method === "calibrated") solverInPlace(settings, solvers);
    return { settings: placeFullSteps(settings, schedules, sampling), notes: [] };
  }
  const quality = qualities[cache];
  if (!quality) {
    throw new FemoError(
      "E_OPTION",
      `cache: "${cache}": nothing of that kind was measured on this model. Choose a method, such as "femo".`,
    );
  }
  const settings = cacheSettings(quality.cache, presets, levels);
  const { measured } = quality;
  const about = { name: cache, measured };
  const { sampler, samplerSettings, numInferenceSteps } = sampling;
  const notes =
    sampler === measured.sampler && !samplerSettings && numInferenceSteps === measured.numInferenceSteps
      ? []
      : [
          `"${cache}" was measured with ${measured.numInferenceSteps} steps of ${measured.sampler}, not with ` +
            `${numInferenceSteps} of ${sampler}${samplerSettings ? " with other settings" : ""}: its measured error does not hold here.`,
        ];
  if (!isToBePlaced(settings)) return { settings, quality: about, notes };
  const isPlaced = placedFor(schedules, sampling).some(({ length }) => length === settings.fullSteps);
  if (isPlaced) return { settings: placeFullSteps(settings, schedules, sampling), quality: about, notes };
  const { fullSteps: _, ...byInterval } = settings; // as many of them, evenly
  return { settings: byInterval, quality: about, notes };
}

/**
 * The solver that takes the sampler's place, if the cache is one.
 * @throws FemoError E_OPTION as `chosenCache`, if it is
 */
export function chosenSolver(
  cache: CacheOptions | QualityName,
  { levels, presets, qualities, solvers }: CacheFacts,
  guidanceScale: number,
): SolverInPlace | undefined {
  const options = isQuality(cache) ? qualities[cache]?.cache : cache;
  const name = typeof options === "object" ? options.method : options;
  if (options === undefined || name !== "calibrated") return undefined;
  const settings = cacheSettings(options, presets, levels);
  return settings.method === "calibrated" ? solverInPlace(settings, solvers, guidanceScale) : undefined;
}
