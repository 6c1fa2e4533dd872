import { expect, test } from "vitest";
import * as z from "zod";
import { schemaIssues } from "../src/schema-issues.js";

const schema = z.object({ name: z.string(), sizes: z.array(z.number()) });
const issues = (value: unknown) => schemaIssues(schema.safeParse(value).error as z.ZodError, "the file");

test("says where, what was expected and what was found", () => {
  expect(issues({ name: "a", sizes: [1, "2"] })).toEqual(["sizes.1: Invalid input: expected number, received string"]);
  expect(issues([])).toEqual(["the file: Invalid input: expected object, received array"]);
});

test("what is not there is missing, not undefined", () => {
  expect(issues({ name: "a" })).toEqual(["sizes: missing, expected array"]);
  expect(issues({})).toEqual(["name: missing, expected string", "sizes: missing, expected array"]);
});
