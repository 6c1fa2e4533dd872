import type * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse, schemaIssues } from "../schema-issues.js";
import { type CacheOptions, type CachePresets, type CacheSettings, cacheSettings } from "./settings.js";

/**
 * The content of a file of what was measured on a model.
 * @throws FemoError E_CONFIG naming the file and the first thing in it that is malformed
 */
export function parseMeasured<T>(schema: z.ZodMiniType<T>, json: unknown, file: string): T {
  const parsed = safeParse(schema, json);
  if (parsed.success) return parsed.data;
  throw new FemoError("E_CONFIG", `${file}: ${schemaIssues(parsed.error, "the file").join("; ")}`);
}

/**
 * A choice of cache in such a file, with every default filled in.
 * @param entry its name in the file
 * @throws FemoError E_CONFIG naming the file and the entry if it names a method or a field that does not exist, or a bad value
 */
export function measuredSettings(
  cache: CacheOptions,
  presets: CachePresets,
  levels: readonly string[],
  file: string,
  entry: string,
): CacheSettings {
  try {
    return cacheSettings(cache, presets, levels);
  } catch (cause) {
    throw new FemoError("E_CONFIG", `${file}: ${entry}: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
}
