import type { Command } from "commander";
import type * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { methodTable } from "../methods/table.js";
import { type CacheOptions, type QualityName, qualityNames } from "../pipelines/index.js";
import { safeParse } from "../schema-issues.js";
import { cacheMethod } from "./options.js";

/** The fields of each method. */
const shapes = new Map(
  methodTable.map(({ name, schema }) => {
    const { method: _, ...shape } = (schema as z.ZodMiniObject).shape;
    return [name as string, shape as Record<string, z.ZodMiniType>];
  }),
);
/** All of them. */
const fields = [...new Set([...shapes.values()].flatMap(Object.keys))];
const methodsWith = (field: string): string[] => [...shapes].flatMap(([name, shape]) => (field in shape ? [name] : []));

const kebab = (field: string): string => field.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** Every field of every method as a flag, which the method's own schema checks. */
export function addCacheFlags(command: Command): Command {
  command.option(
    "--cache <method>",
    `how to skip work: none, ${[...qualityNames, ...methodTable.map(({ name }) => name).slice(1)].join(", ")}`,
    (value) => qualityNames.find((name) => name === value) ?? cacheMethod(value),
    "none",
  );
  for (const field of fields) {
    command.option(`--${kebab(field)} <value>`, `of ${methodsWith(field).join(", ")}`, fieldValue);
  }
  return command;
}

export type CacheFlags = { readonly cache: string } & Readonly<Record<string, unknown>>;

/** The cache that flags choose. @throws FemoError E_OPTION if a field is not the method's, or not what it can be */
export function cacheOf(flags: CacheFlags): CacheOptions | QualityName {
  const given = Object.fromEntries(fields.flatMap((field) => (field in flags ? [[field, flags[field]]] : [])));
  const names = Object.keys(given);
  const quality = qualityNames.find((name) => name === flags.cache);
  if ((flags.cache === "none" || quality) && names.length > 0) {
    throw new FemoError("E_OPTION", `${names.join(", ")}: only with --cache and a method`);
  }
  for (const [field, value] of Object.entries(given)) {
    const schema = shapes.get(flags.cache)?.[field];
    const [issue] = schema ? (safeParse(schema, value).error?.issues ?? []) : [{ message: "it has no such field" }];
    if (issue) throw new FemoError("E_OPTION", `--cache ${flags.cache}: ${field}: ${issue.message}`);
  }
  return quality ?? ({ method: flags.cache, ...given } as CacheOptions);
}

/** "0.5" is a number, "0 1 5" or "0,1,5" a list of numbers, "true" and "false" are what they say, and the rest names. */
function fieldValue(text: string): unknown {
  const parts = text.split(/[\s,]+/).filter(Boolean);
  const numbers = parts.map(Number);
  if (parts.length > 0 && numbers.every(Number.isFinite)) return numbers.length === 1 ? numbers[0] : numbers;
  return text === "true" || text === "false" ? text === "true" : text;
}
