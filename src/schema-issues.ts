import { en } from "zod/locales";
import type * as z from "zod/mini";

// `z.locales` would bring every language into what a page loads.
const { localeError: error } = en();

/**
 * What a schema makes of a value, with what it found wrong in English: zod/mini has no language of its own, and the one that
 * is set for all of zod is the application's.
 */
export const safeParse = <T>(schema: z.ZodMiniType<T>, value: unknown): z.core.util.SafeParseResult<T> =>
  schema.safeParse(value, { error });

/**
 * What a schema found wrong, a line for each field: where it is, and what was expected there.
 * @param error of {@link safeParse}
 * @param whole what to call the value itself, where the fault is in no field of it
 */
export function schemaIssues(error: z.core.$ZodError, whole: string): string[] {
  return error.issues.map((issue) => `${issue.path.map(String).join(".") || whole}: ${messageOf(issue)}`);
}

/** JSON has no undefined: what is so is not there. */
const messageOf = (issue: z.core.$ZodIssue): string =>
  issue.message.endsWith("received undefined") && issue.code === "invalid_type"
    ? `missing, expected ${issue.expected}`
    : issue.message;
