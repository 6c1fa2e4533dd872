import { FemoError } from "../errors.js";
import { type CacheOptions, type CacheSettings, cacheSettings, type Knob, knobOf } from "../methods/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";
import type { StudyOptions } from "./study-options.js";
import { studySubjects } from "./subjects.js";

/**
 * At which cost, and for which requests. Options not described here are those of `generate`; they name a few images to
 * measure on, where a method's cost depends on them, by default four of the model's examples.
 */
export interface CostOptions extends StudyOptions {
  /** Floating-point operations without a cache over those with it, above 0. */
  speedup: number;
}

/** Settings, and the FLOPs speed-up that they reach. */
export interface SettingsAtCost {
  readonly settings: CacheSettings;
  readonly speedup: number;
}

/** Of a threshold: so close, as a share, is close enough, and so many tries are enough. */
const TOLERANCE = 0.02;
const MAX_TRIES = 10;

/**
 * The settings of a method at which its FLOPs speed-up comes nearest to the one wanted. The method's knob is turned, its
 * other fields stay. What a schedule costs follows from the graphs; a method that looks draws the images at every try.
 * @param cache the method, and fields that stay as they are
 * @throws FemoError E_OPTION if the method has no knob or an option is out of range; the signal's reason if it was aborted
 */
export async function settingsAtCost(
  pipeline: DiffusionPipeline,
  cache: CacheOptions,
  { speedup: wanted, ...options }: CostOptions,
): Promise<SettingsAtCost> {
  if (!(wanted > 0 && wanted < Number.POSITIVE_INFINITY)) {
    throw new FemoError("E_OPTION", `speedup: expected a finite number above 0, found ${wanted}`);
  }
  const { method, ...fields } = cacheSettings(cache, pipeline.presets, pipeline.levels);
  const knob = knobOf(method);
  if (!knob) {
    throw new FemoError(
      "E_OPTION",
      `cache: ${method} has no field that trades cost for quality: choose another method`,
    );
  }
  const { subjectOption, examples } = pipeline;
  const subjects = studySubjects({ subjectOption, examples: examples.slice(0, 4) }, options).slice();
  const settingsAt = (value: number): CacheSettings =>
    cacheSettings(
      {
        ...fields,
        ...("fullSteps" in fields && { fullSteps: undefined }),
        method,
        [knob.field]: value,
      } as CacheOptions,
      pipeline.presets,
      pipeline.levels,
    );
  const found = await nearest(knob, wanted, async (value) => {
    options.signal?.throwIfAborted();
    const request: GenerateOptions = { ...options, ...subjects, cache: settingsAt(value), outputType: "latent" };
    const planned = pipeline.plannedFlops(request);
    if (planned) return planned.speedup;
    try {
      return (await pipeline.generate(request)).report.flops.speedup;
    } catch (error) {
      if (value === knob.from || !(error instanceof FemoError) || error.code !== "E_RUNTIME") throw error;
      return Number.POSITIVE_INFINITY; // so few steps are computed that values are not finite any more
    }
  });
  return { settings: settingsAt(found.value), speedup: found.speedup };
}

/**
 * The knob's value whose speed-up comes nearest, by bisection: the speed-up rises with the knob, or nearly so, and is
 * infinite where nothing can be run.
 */
export async function nearest(
  { field, from, to }: Knob,
  wanted: number,
  measure: (value: number) => Promise<number>,
): Promise<{ readonly value: number; readonly speedup: number }> {
  const whole = field === "interval";
  let [low, high] = [from, to];
  let best = { value: low, speedup: await measure(low) };
  const tried = async (value: number): Promise<number> => {
    const speedup = await measure(value);
    if (Math.abs(speedup - wanted) < Math.abs(best.speedup - wanted)) best = { value, speedup };
    return speedup;
  };
  if (best.speedup >= wanted || (await tried(high)) <= wanted) return best;
  for (let tries = 0; whole || (tries < MAX_TRIES && Math.abs(best.speedup / wanted - 1) > TOLERANCE); tries++) {
    const middle = whole ? Math.round((low + high) / 2) : (low + high) / 2;
    if (middle === high) break; // whole numbers next to each other
    if ((await tried(middle)) < wanted) low = middle;
    else high = middle;
  }
  return best;
}
