import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse, schemaIssues } from "../schema-issues.js";
import {
  type Choice,
  type Common,
  type Knob,
  type Method,
  type MethodDefinition,
  type ModelFacts,
  X0,
} from "./method.js";
import { methodTable } from "./table.js";

/** A caching method with every choice made; what a report says. */
export type CacheSettings = z.infer<(typeof methodTable)[number]["schema"]>;
/** The name of a caching method, or "none". */
export type CacheMethod = CacheSettings["method"];
/** All of them, "none" first. */
export const cacheMethods: readonly CacheMethod[] = methodTable.map(({ name }) => name);

type SettingsOf<M extends CacheMethod> = Omit<Extract<CacheSettings, { method: M }>, "method">;
/** A caching method by name, or by name and some of its fields; the model's preset fills in the rest. */
export type CacheOptions = CacheMethod | { [M in CacheMethod]: { method: M } & Choice<SettingsOf<M>> }[CacheMethod];

/** Defaults of each method for a model. */
export type CachePresets = { readonly [M in Exclude<CacheMethod, "none">]: SettingsOf<M> };

/** What each method itself says. */
export const defaultPresets = Object.fromEntries(
  methodTable.filter(({ name }) => name !== "none").map(({ name, defaults }) => [name, Object.freeze(defaults)]),
) as CachePresets;

const schema = z.discriminatedUnion(
  "method",
  methodTable.map((definition) => definition.schema) as [(typeof methodTable)[number]["schema"]],
) as unknown as z.ZodMiniType<CacheSettings>;

/**
 * Fills in and checks a user's choice.
 * @param levels at which the model can be cached
 * @throws FemoError E_OPTION naming each unknown or bad field
 */
export function cacheSettings(options: CacheOptions, presets: CachePresets, levels: readonly string[]): CacheSettings {
  if (typeof options !== "string" && (typeof options !== "object" || options === null)) {
    throw new FemoError("E_OPTION", `cache: expected a method by name, or an object, found ${String(options)}`);
  }
  const given = typeof options === "string" ? { method: options } : options;
  const preset = given.method !== "none" && Object.hasOwn(presets, given.method) ? presets[given.method] : {};
  const chosen = Object.entries(given).filter(([, value]) => value !== undefined);
  const parsed = safeParse(schema, { ...preset, ...Object.fromEntries(chosen) });
  const issues = parsed.success
    ? levelIssues(parsed.data, levels)
    : parsed.error.issues.some(({ path }) => path[0] === "method")
      ? [
          `method: expected one of ${cacheMethods.join(", ")}, found ${JSON.stringify((given as { method?: unknown }).method)}`,
        ]
      : schemaIssues(parsed.error, given.method);
  if (parsed.success && issues.length === 0) return parsed.data;
  throw new FemoError("E_OPTION", `cache: ${issues.join("; ")}`);
}

/** The levels at which a model can be cached: its own, and x0. */
export const cacheLevels = ({ levels }: Pick<ModelFacts, "levels">): readonly string[] => [...levels, X0];

const levelIssues = (settings: CacheSettings, levels: readonly string[]): string[] =>
  "granularity" in settings && !levels.includes(settings.granularity)
    ? [`granularity: expected one of ${levels.join(", ")}, found ${JSON.stringify(settings.granularity)}`]
    : [];

const definitionOf = (name: CacheMethod): MethodDefinition =>
  methodTable.find((definition) => definition.name === name) as unknown as MethodDefinition;

/** A method as its authors write it. */
export const methodTitle = (name: CacheMethod): string => definitionOf(name).title;

/** What its cost goes by, if anything. */
export const knobOf = (name: CacheMethod): Knob | undefined => definitionOf(name).knob;

/** A method as it runs on a model. */
export function methodOf(settings: CacheSettings, model: ModelFacts): Method {
  const method = definitionOf(settings.method).build(settings, model);
  const { errorBound, stateDtype } = settings as CacheSettings & Common;
  return {
    ...method,
    ...(errorBound !== undefined && { errorBound, measure: true }),
    ...(stateDtype === "float16" && { stateDtype }),
  };
}
