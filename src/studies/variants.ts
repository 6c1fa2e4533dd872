import { FemoError } from "../errors.js";
import {
  type CacheMethod,
  type CacheOptions,
  type CacheSettings,
  cacheMethods,
  cacheSettings,
  methodOf,
  methodTitle,
  plannedKinds,
} from "../methods/index.js";
import type { DiffusionPipeline } from "../pipelines/index.js";
import { checkInteger } from "../pipelines/option-types.js";
import { type SamplerName, samplerNames, samplerTitle, type TimestepSpacing } from "../samplers/index.js";

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

/** Which methods, and at what settings. */
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
  readonly granularities?: readonly string[];
  /**
   * Adds an uncached run of each sampler, with as many steps as the others have full ones, in the spacing that is best
   * for it. Default true.
   */
  readonly fewerSteps?: boolean;
}

/** What methods are chosen for. */
type Model = Pick<DiffusionPipeline, "presets" | "levels" | "chains">;

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
export function defaultVariants(model: Model, options: DefaultVariantOptions = {}): CompareVariant[] {
  const { presets } = model;
  const { numInferenceSteps = 50, interval = 5, firstEnhance, order, fewerSteps = true } = options;
  checkInteger("numInferenceSteps", numInferenceSteps, 1, 100_000);
  const methods = [...new Set(options.methods ?? cacheMethods)].filter((method) => method !== "none");
  const levels: readonly (string | undefined)[] = options.granularities ?? [undefined];
  checkMembers("cache", options.methods ?? [], cacheMethods);
  checkMembers("granularity", options.granularities ?? [], model.levels);
  if (order !== undefined && !methods.some((method) => "order" in presets[method])) {
    throw new FemoError("E_OPTION", `order: none of the methods compared has one: ${methods.join(", ")}`);
  }
  const variants: CompareVariant[] = [];
  for (const granularity of levels) {
    for (const method of methods) {
      const chosen = { interval, firstEnhance, granularity, order };
      const own = Object.entries(chosen).filter(([name, value]) => value !== undefined && name in presets[method]);
      const cache = { method, ...Object.fromEntries(own) };
      const title = methodTitle(method);
      const name = levels.length > 1 ? `${title}, ${granularity}` : title;
      variants.push({ name, cache: cache as CacheOptions });
    }
  }
  const [first] = variants;
  if (fewerSteps && first) {
    const steps = fullStepsOf(
      cacheSettings(first.cache ?? "none", presets, model.levels),
      model,
      numInferenceSteps,
    ).length;
    for (const sampler of steps < numInferenceSteps ? samplerNames : []) {
      const name = `${steps} ${samplerTitle(sampler)} steps`;
      const timestepSpacing = rivalSpacing(sampler, steps, numInferenceSteps);
      variants.push({ name, sampler, timestepSpacing, numInferenceSteps: steps });
    }
  }
  return variants;
}

/** The steps that a method computes in full, as far as that is known beforehand; if not, every second one is a guess. */
export function fullStepsOf(settings: CacheSettings, model: Model, numInferenceSteps: number): number[] {
  const kinds = plannedKinds(methodOf(settings, model), numInferenceSteps);
  const steps = Array.from({ length: numInferenceSteps }, (_, step) => step);
  return steps.filter((step) => (kinds ? kinds[step] === "full" : step % 2 === 0));
}

/** Share of a full step that a forecast step is taken to cost, for telling progress and choosing how much to draw. */
export const FORECAST_COST = 0.1;

/** What an image is expected to cost, in full steps. */
export function expectedCost(cache: CacheOptions, model: Model, numInferenceSteps: number): number {
  const settings = cacheSettings(cache, model.presets, model.levels);
  const full = fullStepsOf(settings, model, numInferenceSteps).length;
  return full + FORECAST_COST * (numInferenceSteps - full);
}

function checkMembers(option: string, given: readonly string[], allowed: readonly string[]): void {
  const unknown = given.find((value) => !allowed.includes(value));
  if (unknown === undefined) return;
  throw new FemoError("E_OPTION", `${option}: expected one of ${allowed.join(", ")}, found ${JSON.stringify(unknown)}`);
}
