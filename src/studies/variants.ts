import { FemoError } from "../errors.js";
import {
  type CacheMethod,
  type CacheOptions,
  cacheMethods,
  type FittedSolver,
  knobOf,
  methodOf,
  methodTitle,
} from "../methods/index.js";
import type { DiffusionPipeline, GenerateOptions, SubjectOptions } from "../pipelines/index.js";
import { checkInteger } from "../pipelines/option-types.js";
import {
  type NamedSampler,
  ownSteps,
  type Process,
  processOf,
  type SamplerOption,
  samplerTitle,
  type TimestepSpacing,
} from "../samplers/index.js";
import { stepsAtCost } from "./expected-cost.js";
import { type CostOptions, settingsAtCost } from "./settings-at-cost.js";
import { studySubjects } from "./subjects.js";

/** One way to draw the images of a comparison. */
export interface CompareVariant {
  /** Unique; the heading of its row. */
  readonly name: string;
  /** Default "none". */
  readonly cache?: CacheOptions;
  /** Default: as many steps as the reference, or as the sampler has timesteps of its own. */
  readonly numInferenceSteps?: number;
  /** Default: that of the reference. */
  readonly sampler?: SamplerOption;
  /** Default: that of the reference. */
  readonly timestepSpacing?: TimestepSpacing;
}

/** The methods of a comparison that does not say: the floor, the paper's and its rival, and what came closest. */
export const recommendedMethods: readonly CacheMethod[] = ["fora", "taylorSeer", "femo", "adaptedFemo", "hindsight"];

/** Which methods, and at what settings. */
interface MethodChoice {
  /** Some by name, or "all" but "none", which the reference is. Default: a short list, `recommendedMethods`. */
  readonly methods?: readonly CacheMethod[] | "all";
  /** Steps of the reference. Default: the model's own. */
  readonly numInferenceSteps?: number;
  /** Of the methods that have it. Default: the model's own, for each method. */
  readonly firstEnhance?: number;
  /** Of the methods that have one. Default: the model's own. */
  readonly order?: number;
  /** Each method that has levels at each of these. Default: the model's own. */
  readonly granularities?: readonly string[];
  /** Adds an uncached run of each sampler, in as many steps as cost the same, in the spacing that is best for it. Default true. */
  readonly fewerSteps?: boolean;
  /** Of the reference, for steps that were placed for it. Default: the model's own. */
  readonly sampler?: SamplerOption;
  readonly timestepSpacing?: TimestepSpacing;
}

/** Which methods, at which interval. */
export interface DefaultVariantOptions extends MethodChoice, SubjectOptions {
  /** N, of the methods that go by one; the others keep the model's settings. Default 5. */
  readonly interval?: number;
}

/** Which methods, at which cost, measured how. */
export interface SpeedupVariantOptions
  extends MethodChoice,
    Omit<CostOptions, "numInferenceSteps" | "sampler" | "timestepSpacing"> {}

/**
 * The methods at one interval, and fewer steps of each sampler at the cost of the first method whose cost is known
 * beforehand: what `femo compare` runs. What methods that look cost, only a run tells: see `variantsAtSpeedup`.
 * @throws FemoError E_OPTION if an option is out of range, or fits none of the methods
 */
export function defaultVariants(pipeline: DiffusionPipeline, options: DefaultVariantOptions = {}): CompareVariant[] {
  const { interval = 5, fewerSteps = true } = options;
  const { numInferenceSteps = pipeline.defaults.numInferenceSteps } = options;
  const variants = chosenMethods(pipeline, options).map(({ name, cache }) => ({
    name,
    cache: knobOf(cache.method)?.field === "interval" ? ({ ...cache, interval } as CacheOptions) : cache,
  }));
  const request = { ...studySubjects(pipeline, options).slice(0, 1), numInferenceSteps };
  const planned = variants.map(({ cache }) => costOf(pipeline, { ...request, cache }));
  const speedup = planned.find((flops) => flops !== undefined)?.speedup ?? 1;
  return [
    ...variants,
    ...placedAt(pipeline, variants, speedup, options),
    ...fittedAt(pipeline, speedup, options),
    ...(fewerSteps ? rivals(pipeline, numInferenceSteps, speedup) : []),
  ];
}

/** Steps cost the same wherever they lie: at spacing "dit", where the model's own does not go to so many. */
function costOf(pipeline: DiffusionPipeline, request: GenerateOptions) {
  try {
    return pipeline.plannedFlops(request);
  } catch (error) {
    if (!(error instanceof FemoError) || error.code !== "E_OPTION") throw error;
    return pipeline.plannedFlops({ ...request, timestepSpacing: "dit" });
  }
}

/**
 * The methods each at the settings that come nearest to one FLOPs speed-up, and fewer steps of each sampler at the same. A
 * method with nothing to set keeps the model's settings.
 * @throws FemoError E_OPTION if an option is out of range, or fits none of the methods; the signal's reason if it was aborted
 */
export async function variantsAtSpeedup(
  pipeline: DiffusionPipeline,
  options: SpeedupVariantOptions,
): Promise<CompareVariant[]> {
  const { methods, firstEnhance, order, granularities, fewerSteps = true, ...cost } = options;
  const { numInferenceSteps = pipeline.defaults.numInferenceSteps, speedup } = cost;
  const variants: CompareVariant[] = [];
  for (const { name, cache } of chosenMethods(pipeline, options)) {
    const found = knobOf(cache.method) && (await settingsAtCost(pipeline, cache, cost));
    variants.push({ name, cache: found?.settings ?? cache });
  }
  return [
    ...variants,
    ...placedAt(pipeline, variants, speedup, options),
    ...fittedAt(pipeline, speedup, options),
    ...(fewerSteps ? rivals(pipeline, numInferenceSteps, speedup) : []),
  ];
}

/** Hindsight with as many full steps as the others, placed, if it is among them and the model has such a placement. */
function placedAt(
  pipeline: DiffusionPipeline,
  variants: readonly CompareVariant[],
  speedup: number,
  { numInferenceSteps = pipeline.defaults.numInferenceSteps, sampler, timestepSpacing }: MethodChoice,
): CompareVariant[] {
  const isThere = variants.some(({ cache }) => typeof cache === "object" && cache.method === "hindsight");
  const cache: CacheOptions = { method: "hindsight", fullSteps: stepsAtCost(numInferenceSteps, speedup) };
  if (!isThere) return [];
  if (!isAccepted(() => pipeline.cacheSettings(cache, { numInferenceSteps, sampler, timestepSpacing }))) return [];
  return [{ name: `${methodTitle("hindsight")}, placed`, cache }];
}

/** The fitted solver of as many runs as cost the same, or the next fewer, if methods are not named and the model has one. */
function fittedAt(
  { solvers, defaults }: DiffusionPipeline,
  speedup: number,
  { methods, numInferenceSteps = defaults.numInferenceSteps }: MethodChoice,
): CompareVariant[] {
  if (methods !== undefined && methods !== "all") return [];
  const runs = ({ timesteps }: FittedSolver): number => timesteps.length;
  const affordable = solvers.filter((solver) => runs(solver) <= stepsAtCost(numInferenceSteps, speedup));
  const most = affordable.filter((solver) => runs(solver) === Math.max(...affordable.map(runs)));
  // What all are compared with are the uncached images.
  const fitted = most.find(({ measured }) => measured.target === "reference") ?? most[0];
  if (!fitted) return [];
  const cache: CacheOptions = { method: "calibrated", fullSteps: runs(fitted), target: fitted.measured.target };
  return [{ name: methodTitle("calibrated"), cache }];
}

/** Whether a method needs nothing that the model does not have, such as ratios that were measured on it. */
export const runsOn = (pipeline: DiffusionPipeline, method: CacheMethod): boolean =>
  isAccepted(() => methodOf(pipeline.cacheSettings(method), pipeline));

/** Whether a choice is one, by whoever checks it. @param choose what throws E_OPTION if it is none */
export function isAccepted(choose: () => unknown): boolean {
  try {
    choose();
    return true;
  } catch (error) {
    if (error instanceof FemoError && error.code === "E_OPTION") return false;
    throw error;
  }
}

/** The methods by the names of their rows, as far as they are chosen without their cost. */
function chosenMethods(
  pipeline: DiffusionPipeline,
  {
    methods: named = recommendedMethods,
    granularities,
    firstEnhance,
    order,
    numInferenceSteps = pipeline.defaults.numInferenceSteps,
  }: MethodChoice,
): { readonly name: string; readonly cache: Exclude<CacheOptions, string> }[] {
  checkInteger("numInferenceSteps", numInferenceSteps, 1, 100_000);
  const { presets, levels } = pipeline;
  const all =
    named === "all" ? cacheMethods.filter((method) => method !== "calibrated" && runsOn(pipeline, method)) : named;
  checkMembers("cache", all, cacheMethods);
  checkMembers("granularity", granularities ?? [], levels);
  const methods = [...new Set(all)].filter((method) => method !== "none");
  const has = (method: (typeof methods)[number], field: string): boolean => field in presets[method];
  if (order !== undefined && !methods.some((method) => has(method, "order"))) {
    throw new FemoError("E_OPTION", `order: none of the methods compared has one: ${methods.join(", ")}`);
  }
  return (granularities ?? [undefined]).flatMap((granularity, i) =>
    methods
      .filter((method) => i === 0 || has(method, "granularity"))
      .map((method) => {
        const title = methodTitle(method);
        const several = granularities && granularities.length > 1 && has(method, "granularity");
        const own = Object.entries({ firstEnhance, granularity, order }).filter(
          ([field, value]) => value !== undefined && has(method, field),
        );
        return {
          name: several ? `${title}, ${granularity}` : title,
          cache: { method, ...Object.fromEntries(own) } as Exclude<CacheOptions, string>,
        };
      }),
  );
}

/**
 * The spacing in which a sampler is the strongest rival. DDIM must land on its own list: "leading" came closest on the
 * embedded model, but has no strides for more than half of the timesteps. Of DPM-Solver++'s "trailing" did, before
 * "lambda" (docs/methods.md). On a flow it is the model's own.
 */
function rivalSpacing(sampler: NamedSampler, steps: number, stepsOfReference: number): TimestepSpacing {
  if (sampler === "dpm-solver++") return "trailing";
  return 2 * steps <= stepsOfReference ? "leading" : "dit";
}

/** The samplers whose fewer steps are rivals of caching. */
const rivalSamplers: { readonly [P in Process]: readonly NamedSampler[] } = {
  diffusion: ["ddim", "dpm-solver++"],
  flow: ["euler", "dpm-solver++"],
};

/** Fewer uncached steps of the samplers that suit the model at the same cost, if there is one to match. */
function rivals({ scheduler }: DiffusionPipeline, numInferenceSteps: number, speedup: number): CompareVariant[] {
  const steps = stepsAtCost(numInferenceSteps, speedup);
  if (steps >= numInferenceSteps) return [];
  const process = processOf(scheduler);
  return rivalSamplers[process].map((sampler) => ({
    name: `${steps} ${samplerTitle(sampler)} ${steps === 1 ? "step" : "steps"}`,
    sampler,
    ...(process === "diffusion" && { timestepSpacing: rivalSpacing(sampler, steps, numInferenceSteps) }),
    numInferenceSteps: steps,
  }));
}

/** The steps of a variant, beside a reference of so many. */
export const stepsOf = (
  { numInferenceSteps, sampler }: Omit<CompareVariant, "name">,
  stepsOfReference: number,
): number => numInferenceSteps ?? ownSteps(sampler) ?? stepsOfReference;

function checkMembers(option: string, given: readonly string[], allowed: readonly string[]): void {
  const unknown = given.find((value) => !allowed.includes(value));
  if (unknown === undefined) return;
  throw new FemoError("E_OPTION", `${option}: expected one of ${allowed.join(", ")}, found ${JSON.stringify(unknown)}`);
}
