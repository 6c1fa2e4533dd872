import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { parseJson } from "../../src/weights/json.js";
import { anyCharacter } from "../unicode.js";
import { femoError } from "./helpers.js";

describe("parseJson", () => {
  test("reads what JSON.parse reads", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 5, stringUnit: anyCharacter }), fc.nat(4), (text, indent) => {
        const value = JSON.parse(text);
        expect(parseJson(text, "f")).toStrictEqual(value);
        expect(parseJson(JSON.stringify(value, null, indent), "f")).toStrictEqual(value);
      }),
    );
  });

  test("accepts nothing that JSON.parse refuses, and refuses more only for repeated keys, half characters and depth", () => {
    const pieces = [
      '"',
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      "1",
      "-",
      "0",
      ".",
      "e5",
      "true",
      "nul",
      "\\u00",
      '"a"',
      " ",
      "\n",
      "\\",
      "\u0001",
    ];
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 12 }), (parts) => {
        const text = parts.join("");
        let expected: unknown;
        try {
          expected = JSON.parse(text);
        } catch {
          expect(() => parseJson(text, "f")).toThrow(FemoError);
          return;
        }
        try {
          expect(parseJson(text, "f")).toStrictEqual(expected);
        } catch (error) {
          expect((error as Error).message).toMatch(/a second time|half a character/);
        }
      }),
      { numRuns: 3000 },
    );
  });

  test.each([
    ['{"a": 1,\n "b" 2}', 'line 2, column 6: expected ":", found "2}"'],
    ['{"a": 1, "a": 2}', 'line 1, column 10: the key "a" a second time'],
    ['{"x": {"a": 1, "\\u0061": 2}}', 'the key "a" a second time'],
    ['{"a": 1', 'line 1, column 8: expected "," or "}", found the end'],
    ['["abc', "line 1, column 2: a string without its closing quote"],
    ['["\\x"]', "a string with an unknown escape"],
    ['["\\ud800"]', "an escape that is half a character"],
    ["[NaN]", 'column 2: expected a value, found "NaN]"'],
    ["[01]", 'expected "," or "]"'],
    ["{} x", 'expected the end, found "x"'],
    ["", "expected a value, found the end"],
    ["[".repeat(1_000_000), "nested deeper than 100 levels"],
  ])("%.40s", async (text, message) => {
    expect(await femoError("E_CONFIG", () => parseJson(text, "vae/config.json"))).toContain(message);
    expect(await femoError("E_CONFIG", () => parseJson(text, "vae/config.json"))).toContain("vae/config.json");
  });

  test("infinity is read as Python writes it", () => {
    expect(parseJson('{"a": -Infinity, "b": [Infinity]}', "f")).toEqual({
      a: Number.NEGATIVE_INFINITY,
      b: [Number.POSITIVE_INFINITY],
    });
    expect(() => parseJson("-Infinit", "f")).toThrow(FemoError);
  });

  test("__proto__ is a key like any other", () => {
    const value = parseJson('{"__proto__": {"polluted": true}}', "f") as object;
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
    expect(Object.keys(value)).toEqual(["__proto__"]);
  });
});
