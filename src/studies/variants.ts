import { FemoError } from "../errors.js";
import { type Granularity, granularities } from "../graph/index.js";
import { cacheSettings, scheduleOf } from "../pipelines/cache-options.js";
import {
  type CacheMethod,
  type CacheOptions,
  type CachePresets,
  type CacheSettings,
  cacheMethods,
} from "../pipelines/index.js";
import { checkInteger } from "../pipelines/option-types.js";
import { type SamplerName, samplerNames, samplerTitles, type TimestepSpacing } from "../samplers/index.js";

/** One way to draw the images of a comparison. */
export interface CompareVariant {
  /** Unique; the heading of its row. */
  readonly name: string;
  /** Default "none". */
  readonly cache?: CacheOptions;
  /** Default: as many steps as the reference. */
  readonly numInferenceSteps?: number;
  /** Default: that of the reference. */
  readonly sampler?: SamplerName;
  /** Default: that of the reference. */
  readonly timestepSpacing?: TimestepSpacing;
}

export interface DefaultVariantOptions {
  /** Default: all but "none", which the reference is. */
  readonly methods?: readonly CacheMethod[];
  /** Steps of the reference. Default 50. */
  readonly numInferenceSteps?: number;
  /** N, of every method. Default 5. */
  readonly interval?: number;
  /** Default: the model's own, for each method. */
  readonly firstEnhance?: number;
  /** Of the methods that have one. Default: the model's own. */
  readonly order?: number;
  /** Each method at each of these. Default: the model's own. */
  readonly granularities?: readonly Granularity[];
  /**
   * Adds an uncached run of each sampler, with as many steps as the others have full ones, in the spacing that is best
   * for it. Default true.
   */
  readonly fewerSteps?: boolean;
}

/** Names of the methods as their authors write them. */
const titles: Readonly<Record<CacheMethod, string>> = {
  none: "No cache",
  fora: "FORA",
  taylorSeer: "TaylorSeer",
  newton: "Newton",
  femo: "FEMO",
  adaptedFemo: "Adapted-FEMO",
};

/**
 * The spacing in which a sampler is the strongest rival. DDIM must land on its own list: "leading" came closest on the
 * embedded model, but has no strides for more than half of the timesteps. Of DPM-Solver++'s "trailing" did.
 */
function rivalSpacing(sampler: SamplerName, steps: number, stepsOfReference: number): TimestepSpacing {
  if (sampler === "dpm-solver++") return "trailing";
  return 2 * steps <= stepsOfReference ? "leading" : "dit";
}

/**
 * The methods at one interval, and fewer steps of each sampler at the same cost: what `femo compare` runs.
 * @throws FemoError E_OPTION if an option is out of range, or fits none of the methods
 */
export function defaultVariants(presets: CachePresets, options: DefaultVariantOptions = {}): CompareVariant[] {
  const { numInferenceSteps = 50, interval = 5, firstEnhance, order, fewerSteps = true } = options;
  checkInteger("numInferenceSteps", numInferenceSteps, 1, 100_000);
  const methods = [...new Set(options.methods ?? cacheMethods)].filter((method) => method !== "none");
  const levels: readonly (Granularity | undefined)[] = options.granularities ?? [undefined];
  checkMembers("cache", options.methods ?? [], cacheMethods);
  checkMembers("granularity", options.granularities ?? [], granularities);
  if (order !== undefined && !methods.some((method) => "order" in presets[method])) {
    throw new FemoError("E_OPTION", `order: none of the methods compared has one: ${methods.join(", ")}`);
  }
  const variants: CompareVariant[] = [];
  for (const granularity of levels) {
    for (const method of methods) {
      const cache = {
        method,
        interval,
        ...(firstEnhance !== undefined && { firstEnhance }),
        ...(granularity && { granularity }),
        ...(order !== undefined && "order" in presets[method] && { order }),
      };
      const name = levels.length > 1 ? `${titles[method]}, ${granularity}` : titles[method];
      variants.push({ name, cache: cache as CacheOptions });
    }
  }
  const [first] = variants;
  if (fewerSteps && first) {
    const steps = fullStepsOf(cacheSettings(first.cache ?? "none", presets), numInferenceSteps).length;
    for (const sampler of steps < numInferenceSteps ? samplerNames : []) {
      const name = `${steps} ${samplerTitles[sampler]} steps`;
      const timestepSpacing = rivalSpacing(sampler, steps, numInferenceSteps);
      variants.push({ name, sampler, timestepSpacing, numInferenceSteps: steps });
    }
  }
  return variants;
}

/** The steps that a method computes in full. */
export function fullStepsOf(settings: CacheSettings, numInferenceSteps: number): number[] {
  const schedule = scheduleOf(settings);
  return Array.from({ length: numInferenceSteps }, (_, step) => step).filter((step) => schedule.isFull(step));
}

/** Share of a full step that a forecast step is taken to cost, for telling progress and choosing how much to draw. */
export const FORECAST_COST = 0.1;

/** What an image is expected to cost, in full steps. */
export function expectedCost(cache: CacheOptions, presets: CachePresets, numInferenceSteps: number): number {
  const full = fullStepsOf(cacheSettings(cache, presets), numInferenceSteps).length;
  return full + FORECAST_COST * (numInferenceSteps - full);
}

function checkMembers(option: string, given: readonly string[], allowed: readonly string[]): void {
  const unknown = given.find((value) => !allowed.includes(value));
  if (unknown === undefined) return;
  throw new FemoError("E_OPTION", `${option}: expected one of ${allowed.join(", ")}, found ${JSON.stringify(unknown)}`);
}
