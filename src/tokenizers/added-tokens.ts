import { Trie } from "./trie.js";

/** A string that is one token wherever it stands in a prompt, such as "<|endoftext|>". */
export interface AddedToken {
  readonly content: string;
  readonly id: number;
  /** Looked for in the normalized text, not in the text as it is written. */
  readonly normalized: boolean;
  /** Takes the white space before it, or behind it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Only where no letter, digit or underscore is next to it. */
  readonly singleWord: boolean;
}

/** A part of a prompt: a token, or text that is normalized and has no added token in it. */
export type Section = { readonly token: AddedToken; readonly text: string } | { readonly text: string };

/**
 * Cuts prompts at added tokens: first at those that are looked for in the text as written, then, the rest being normalized,
 * at the others. Of several at a place the longest is taken.
 */
export function sectionsOf(
  tokens: readonly AddedToken[],
  normalize: (text: string) => string,
): (text: string) => Section[] {
  const written = splitter(tokens.filter(({ normalized }) => !normalized).map((token) => [token.content, token]));
  const normal = splitter(
    tokens.filter(({ normalized }) => normalized).map((token) => [normalize(token.content), token]),
  );
  return (text) =>
    written(text).flatMap((section) => ("token" in section ? [section] : normal(normalize(section.text))));
}

function splitter(entries: readonly (readonly [content: string, token: AddedToken])[]): (text: string) => Section[] {
  const tokens = entries.filter(([content]) => content !== "");
  const trie = new Trie(tokens.map(([content], i) => [content, i]));
  return (text) => {
    const sections: Section[] = [];
    let done = 0;
    const take = (end: number, token?: AddedToken): void => {
      if (end > done) sections.push({ text: text.slice(done, end), ...(token && { token }) });
      done = Math.max(done, end);
    };
    for (let at = 0; at < text.length; ) {
      let longest: { token: AddedToken; end: number } | undefined;
      trie.at(text, at, (i, end) => {
        longest = { token: (tokens[i] as (typeof tokens)[number])[1], end };
      });
      if (!longest) {
        at++;
        continue;
      }
      const { token, end } = longest;
      if (!token.singleWord || standsAlone(text, at, end)) {
        take(token.lstrip ? Math.max(done, trimEnd(text, at)) : at);
        take(token.rstrip ? trimStart(text, end) : end, token);
      }
      at = Math.max(end, done);
    }
    take(text.length);
    return sections;
  };
}

const WORD_BEFORE = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]$/u;
const WORD_BEHIND = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]/u;
const standsAlone = (text: string, start: number, end: number): boolean =>
  !WORD_BEFORE.test(text.slice(Math.max(0, start - 2), start)) && !WORD_BEHIND.test(text.slice(end, end + 2));

const WHITE_SPACE = /\p{White_Space}/u; // all of it is in single UTF-16 units
function trimEnd(text: string, end: number): number {
  let at = end;
  while (at > 0 && WHITE_SPACE.test(text[at - 1] as string)) at--;
  return at;
}
function trimStart(text: string, start: number): number {
  let at = start;
  while (at < text.length && WHITE_SPACE.test(text[at] as string)) at++;
  return at;
}
