import type * as z from "zod";

/**
 * What a schema found wrong, a line for each field: where it is, and what was expected there.
 * @param whole what to call the value itself, where the fault is in no field of it
 */
export function schemaIssues(error: z.ZodError, whole: string): string[] {
  return error.issues.map((issue) => `${issue.path.map(String).join(".") || whole}: ${messageOf(issue)}`);
}

/** JSON has no undefined: what is so is not there. */
const messageOf = (issue: z.core.$ZodIssue): string =>
  issue.message.endsWith("received undefined") && issue.code === "invalid_type"
    ? `missing, expected ${issue.expected}`
    : issue.message;
