import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse, schemaIssues } from "../schema-issues.js";

/** A count or size in a config; the bound, far above any real model, keeps a damaged one from asking for a graph without end. */
export const positive = z.int().check(z.positive(), z.maximum(65_536));

/** How many layers there are of a kind. */
export const layerCount = positive.check(z.maximum(1024));

/** Of a norm. */
export const epsilon = z.number().check(z.positive());

/**
 * A component's `config.json` by its schema.
 * @param className of diffusers, which the config is one of
 * @throws FemoError E_CONFIG naming each bad field
 */
export function parseConfig<T>(schema: z.ZodMiniType<T>, json: unknown, file: string, className: string): T {
  const parsed = safeParse(schema, json);
  if (parsed.success) return parsed.data;
  const issues = schemaIssues(parsed.error, "(root)");
  throw new FemoError(
    "E_CONFIG",
    `${file} is not ${/^[AEIOU]/.test(className) ? "an" : "a"} ${className} config: ${issues.join("; ")}`,
  );
}
