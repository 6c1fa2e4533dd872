import { expect, test } from "vitest";
import * as z from "zod/mini";
import { safeParse, schemaIssues } from "../src/schema-issues.js";

const schema = z.object({ name: z.string(), sizes: z.array(z.number()) });
const issues = (value: unknown) => schemaIssues(safeParse(schema, value).error as z.core.$ZodError, "the file");

test("says where, what was expected and what was found", () => {
  expect(issues({ name: "a", sizes: [1, "2"] })).toEqual(["sizes.1: Invalid input: expected number, received string"]);
  expect(issues([])).toEqual(["the file: Invalid input: expected object, received array"]);
});

test("what is not there is missing, not undefined", () => {
  expect(issues({ name: "a" })).toEqual(["sizes: missing, expected array"]);
  expect(issues({})).toEqual(["name: missing, expected string", "sizes: missing, expected array"]);
});

test("neither heeds nor changes what an application sets of zod", () => {
  const { localeError } = z.config();
  try {
    z.config(z.locales.de());
    expect(issues({ name: 1, sizes: [] })).toEqual(["name: Invalid input: expected string, received number"]);
    expect(schema.safeParse(1).error?.issues[0]?.message).toMatch(/^Ungültige Eingabe/);
    z.config({ localeError: undefined });
    expect(issues({ name: "a" })).toEqual(["sizes: missing, expected array"]);
  } finally {
    z.config({ localeError });
  }
});
