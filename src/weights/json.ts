import { FemoError, type FemoErrorCode } from "../errors.js";
import { quote } from "./text.js";

/** Deeper nesting is refused: no config or header comes near it, and the parser below calls itself. */
const MAX_DEPTH = 100;

/**
 * JSON as `JSON.parse` reads it, for files from elsewhere: every error has its place, and a key given twice is an error
 * (`JSON.parse` keeps the last silently). Half a surrogate pair in a string is an error too: it has no UTF-8 form. Beyond
 * JSON it takes Infinity and -Infinity, which Python writes into the configs of some schedulers.
 * @param file the name in messages
 * @param code of the error
 * @param advice what to do about a malformed file, a sentence
 * @throws FemoError with file, line, column, what was expected and what was found
 */
export function parseJson(
  text: string,
  file: string,
  code: FemoErrorCode = "E_CONFIG",
  advice = "Repair it, or download it again.",
): unknown {
  let at = 0;

  const fail = (problem: string, where = at): never => {
    const lines = text.slice(0, where).split("\n");
    const column = (lines.at(-1)?.length ?? 0) + 1;
    throw new FemoError(
      code,
      `${file}: not valid JSON at line ${lines.length}, column ${column}: ${problem}. ${advice}`,
    );
  };
  const expected = (what: string): never =>
    fail(`expected ${what}, found ${at < text.length ? quote(text.slice(at, at + 20)) : "the end"}`);

  const skipSpace = () => {
    for (; at < text.length; at++) {
      const c = text.charCodeAt(at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
    }
  };

  const string = (): string => {
    if (text[at] !== '"') expected("a string in quotes");
    const start = at;
    let escapes = false;
    for (let i = at + 1; ; i++) {
      const c = text.charCodeAt(i);
      if (c === 0x22) {
        at = i + 1;
        break;
      }
      if (c === 0x5c) {
        escapes = true;
        i++;
      } else if (Number.isNaN(c)) fail("a string without its closing quote", start);
      else if (c < 0x20) fail("a control character in a string, which must be escaped", i);
    }
    if (!escapes) return text.slice(start + 1, at - 1);
    let value: string;
    try {
      value = JSON.parse(text.slice(start, at)) as string;
    } catch {
      return fail("a string with an unknown escape", start);
    }
    return /\p{Surrogate}/u.test(value) ? fail("an escape that is half a character", start) : value;
  };

  const number = (): number => {
    const found = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
    found.lastIndex = at;
    const digits = found.exec(text)?.[0];
    if (digits === undefined) return expected("a value");
    at += digits.length;
    return Number(digits);
  };

  /** `{ ... }` or `[ ... ]`: calls `item` for each, which leaves `at` behind it. */
  const items = (close: string, item: () => void): void => {
    at++;
    skipSpace();
    if (text[at] === close) {
      at++;
      return;
    }
    for (;;) {
      skipSpace();
      item();
      skipSpace();
      if (text[at] === close) break;
      if (text[at] !== ",") expected(`"," or "${close}"`);
      at++;
    }
    at++;
  };

  const value = (depth: number): unknown => {
    if (depth > MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH} levels`);
    switch (text[at]) {
      case "{": {
        const object: Record<string, unknown> = {};
        items("}", () => {
          const start = at;
          const key = string();
          if (Object.hasOwn(object, key)) fail(`the key ${quote(key)} a second time`, start);
          skipSpace();
          if (text[at] !== ":") expected('":"');
          at++;
          skipSpace();
          const member = value(depth + 1);
          // An assignment to __proto__ would change the object's prototype instead.
          if (key !== "__proto__") object[key] = member;
          else
            Object.defineProperty(object, key, { value: member, writable: true, enumerable: true, configurable: true });
        });
        return object;
      }
      case "[": {
        const list: unknown[] = [];
        items("]", () => list.push(value(depth + 1)));
        return list;
      }
      case '"':
        return string();
    }
    for (const [word, constant] of WORDS) {
      if (text.startsWith(word, at)) {
        at += word.length;
        return constant;
      }
    }
    return number();
  };

  skipSpace();
  const result = value(0);
  skipSpace();
  if (at < text.length) expected("the end");
  return result;
}

const WORDS: readonly (readonly [string, boolean | number | null])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
  ["Infinity", Number.POSITIVE_INFINITY],
  ["-Infinity", Number.NEGATIVE_INFINITY],
];

/** A JSON object, neither a list nor null. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
