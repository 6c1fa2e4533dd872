import { FemoError } from "../errors.js";
import type { SamplerDefinition } from "./definition.js";
import { type TrainingChainConfig, trainingChainDefaults } from "./training-chain.js";

/** The settings that a request's sampler may not say: what the model was trained with, and the spacing, an option of its own. */
export type ModelSetting = keyof TrainingChainConfig | "timestepSpacing";
const modelSettings: ReadonlySet<string> = new Set([...Object.keys(trainingChainDefaults), "timestepSpacing"]);

/**
 * The settings that a request gives with a sampler's name. Whether values are in range the sampler checks.
 * @param choice `sampler`, its name, and settings; those that are undefined are as if left out
 * @throws FemoError E_OPTION if there is no such setting, it is the model's, or its value is of another type
 */
export function givenSettings({ name, defaults = {} }: SamplerDefinition, choice: object): Record<string, unknown> {
  const given = Object.entries(choice).filter(([key, value]) => key !== "sampler" && value !== undefined);
  const known = new Map<string, unknown>(Object.entries(defaults).filter(([key]) => !modelSettings.has(key)));
  for (const [key, value] of given) {
    const wrong = known.has(key) ? wrongType(value, known.get(key)) : noSuch(name, key, [...known.keys()]);
    if (wrong) throw new FemoError("E_OPTION", `sampler: ${key}: ${wrong}.`);
  }
  return Object.fromEntries(given);
}

function noSuch(name: string, key: string, keys: readonly string[]): string {
  const there = keys.length > 0 ? `there are ${keys.join(", ")}` : "there are none";
  if (key === "timestepSpacing") return `an option beside sampler, not a setting in it; ${there}`;
  return modelSettings.has(key)
    ? `the model's own, which a request cannot change; of ${name} ${there}`
    : `${name} has no such setting; ${there}`;
}

/** What is wrong with a value, whose type is to be that of the default; null is one of a number, or none. */
function wrongType(value: unknown, own: unknown): string | undefined {
  if (Array.isArray(own)) return Array.isArray(value) ? undefined : `expected a list, found ${shown(value)}`;
  if (own === null) {
    return value === null || typeof value === "number" ? undefined : `expected a number or null, found ${shown(value)}`;
  }
  return typeof value === typeof own ? undefined : `expected a ${typeof own}, found ${shown(value)}`;
}

const shown = (value: unknown): string =>
  typeof value === "string" ? JSON.stringify(value) : typeof value === "object" ? kindOf(value) : String(value);

const kindOf = (value: object | null): string =>
  value === null ? "null" : Array.isArray(value) ? "a list" : "an object";
