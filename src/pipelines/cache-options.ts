import { z } from "zod";
import { FemoError } from "../errors.js";
import {
  adaptedFemo,
  betaScopes,
  biasCorrections,
  type Forecaster,
  femo,
  femoSeeds,
  fora,
  newton,
  taylorSeer,
} from "../forecasts/index.js";
import { granularities } from "../graph/index.js";
import { everyInterval, everyStep, fullSteps, type Schedule } from "../schedules/index.js";

const step = z.number().int().nonnegative();
const beta = z.number().gt(-1).lt(1);
const order = z.number().int().min(1).max(4);

/** Fields of every method that forecasts. */
const placed = {
  /** N: a full step every so many steps. */
  interval: z.number().int().min(1),
  /** Full steps at the start. */
  firstEnhance: z.number().int().min(1),
  /** The full steps themselves, in place of interval and firstEnhance; step 0 must be among them. */
  fullSteps: z.array(step).min(1).readonly().optional(),
  /** The level at which features are kept and forecast. */
  granularity: z.enum(granularities),
  /** Report the forecast error of every full step; costs one small product per feature. */
  measure: z.boolean(),
};
const momentum = {
  order,
  /** One for all images, or one for each in turn. */
  beta: z.union([beta, z.array(beta).min(1).readonly()]),
  seed: z.enum(femoSeeds),
  biasCorrection: z.enum(biasCorrections),
};

const schema = z.discriminatedUnion("method", [
  z.strictObject({ method: z.literal("none") }),
  z.strictObject({ method: z.literal("fora"), ...placed }),
  z.strictObject({ method: z.literal("taylorSeer"), ...placed, order }),
  z.strictObject({ method: z.literal("newton"), ...placed, order }),
  z.strictObject({ method: z.literal("femo"), ...placed, ...momentum }),
  z.strictObject({
    method: z.literal("adaptedFemo"),
    ...placed,
    ...momentum,
    gamma: z.number().nonnegative(),
    delta: z.number().nonnegative(),
    betaPer: z.enum(betaScopes),
  }),
]);

/** A caching method with every choice made; what a report says. */
export type CacheSettings = z.infer<typeof schema>;
export type CacheMethod = CacheSettings["method"];
export const cacheMethods = schema.options.map((option) => option.shape.method.value) as CacheMethod[];

/** A caching method by name, or by name and some of its fields; the model's preset fills in the rest. */
export type CacheOptions =
  | CacheMethod
  | { [M in CacheMethod]: { method: M } & Partial<Omit<Extract<CacheSettings, { method: M }>, "method">> }[CacheMethod];

/** Defaults of each method for a model, as measured on it. */
export type CachePresets = {
  readonly [M in Exclude<CacheMethod, "none">]: Omit<Extract<CacheSettings, { method: M }>, "method">;
};

/**
 * Fills in and checks a user's choice.
 * @throws FemoError E_OPTION naming each unknown or bad field
 */
export function cacheSettings(options: CacheOptions, presets: CachePresets): CacheSettings {
  const given = typeof options === "string" ? { method: options } : options;
  const preset = given.method !== "none" && Object.hasOwn(presets, given.method) ? presets[given.method] : {};
  const parsed = schema.safeParse({ ...preset, ...given });
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues.map((issue) =>
    issue.path[0] === "method"
      ? `method: expected one of ${cacheMethods.join(", ")}, found ${JSON.stringify((given as { method?: unknown }).method)}`
      : `${issue.path.join(".") || given.method}: ${issue.message}`,
  );
  throw new FemoError("E_OPTION", `cache: ${issues.join("; ")}`);
}

/** Whether full steps give Gram matrices: adapting needs them; the other methods only report errors by them. */
export const measures = (settings: CacheSettings): boolean =>
  settings.method !== "none" && (settings.measure || settings.method === "adaptedFemo");

/** When to compute. */
export function scheduleOf(settings: CacheSettings): Schedule {
  if (settings.method === "none") return everyStep;
  return settings.fullSteps ? fullSteps(settings.fullSteps) : everyInterval(settings);
}

/** What to predict. */
export function forecasterOf(settings: Exclude<CacheSettings, { method: "none" }>): Forecaster {
  // A forecaster is given back the memory that it made: what is in it concerns nobody else.
  return forecasterWithMemory(settings) as Forecaster;
}

function forecasterWithMemory(settings: Exclude<CacheSettings, { method: "none" }>) {
  switch (settings.method) {
    case "fora":
      return fora();
    case "taylorSeer":
      return taylorSeer(settings.order);
    case "newton":
      return newton(settings.order);
    case "femo":
      return femo(settings);
    case "adaptedFemo":
      return adaptedFemo(settings);
  }
}
