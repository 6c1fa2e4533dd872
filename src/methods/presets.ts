import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse } from "../schema-issues.js";
import { measuredSettings } from "./measured-file.js";
import type { CacheMethod, CachePresets } from "./settings.js";

/**
 * Presets with those replaced that were measured on a model.
 * @param json the content of its presets file: by method, some of its fields
 * @param file named in errors
 * @throws FemoError E_CONFIG if it is malformed, names a method or a field that does not exist, or a bad value
 */
export function presetsFromJson(
  json: unknown,
  presets: CachePresets,
  levels: readonly string[],
  file: string,
): CachePresets {
  const parsed = safeParse(z.record(z.string(), z.record(z.string(), z.unknown())), json);
  if (!parsed.success) {
    throw new FemoError("E_CONFIG", `${file}: expected for each method an object of its fields, found something else`);
  }
  const measured = Object.entries(parsed.data).map(([method, fields]) => {
    const cache = { ...fields, method: method as CacheMethod };
    const { method: _, ...settings } = measuredSettings(cache, presets, levels, file, method);
    return [method, settings] as const;
  });
  return { ...presets, ...Object.fromEntries(measured) };
}
