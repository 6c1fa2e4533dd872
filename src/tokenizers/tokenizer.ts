import { FemoError } from "../errors.js";
import { type AddedToken, sectionsOf } from "./added-tokens.js";

/** A prompt as a text encoder takes it. */
export interface Encoding {
  /** As many ids as were asked for, padding included. */
  readonly ids: readonly number[];
  /** Ids before the padding, those at the text's start and end included. */
  readonly tokens: number;
  /** Tokens of the prompt that were cut off; 0 if it fits. */
  readonly dropped: number;
  /** What of the prompt was cut off, in whole words, as the tokenizer normalizes it; "" if it fits. */
  readonly droppedText: string;
}

/**
 * Makes prompts into ids. Hugging Face's JavaScript library does that too and is what the tests compare the algorithms
 * with. It is not used here: it neither cuts nor pads, approximates T5's normalizing by NFKC, runs the regular expressions
 * of files, and takes a gigabyte for a word of a million letters.
 */
export interface Tokenizer {
  /** Whose it is: of CLIP's text encoders, of T5, or of BERT. */
  readonly kind: "clip" | "t5" | "bert";
  /** All ids are less than this. The text encoder must have as many embeddings. */
  readonly idLimit: number;
  /** Ids of the tokens at the end of each text, and behind it. */
  readonly endId: number;
  readonly padId: number;
  /** Ids that a prompt may have, if the tokenizer's config says so: 77 for CLIP. */
  readonly maxLength?: number;
  /**
   * A prompt in ids: cut if it is too long, with the end's token kept, and padded if it is short, as transformers does with
   * `padding="max_length", truncation=True`. Any string is allowed; half a surrogate pair counts as U+FFFD.
   * @param length of `ids`; `maxLength` unless told
   * @throws FemoError E_OPTION if the length is no whole number up to 2^20 or too small for the start's and the end's tokens
   */
  encode(text: string, length?: number): Encoding;
}

/** A prompt in as many ids as it has, up to so many: no padding. @throws FemoError E_OPTION as `Tokenizer.encode` */
export function idsWithoutPadding(tokenizer: Tokenizer, text: string, length?: number): readonly number[] {
  const { ids, tokens } = tokenizer.encode(text, length);
  return ids.slice(0, tokens);
}

/** A word of a normalized text in ids, and how it reads, with what is between it and the word before. */
export interface Word {
  readonly ids: readonly number[];
  readonly text: string;
}

/** The words of a text, which a pattern finds; what is behind the last one counts as a word without ids. */
export function* wordsIn(text: string, pattern: RegExp, encode: (word: string) => number[]): Generator<Word, void> {
  let before = 0;
  for (const { 0: word, index } of text.matchAll(pattern)) {
    const end = index + word.length;
    yield { ids: encode(word), text: text.slice(before, end) };
    before = end;
  }
  if (before < text.length) yield { ids: [], text: text.slice(before) };
}

/** What tokenizers differ in. */
export interface Scheme extends Pick<Tokenizer, "kind" | "endId" | "padId"> {
  readonly vocabularyIds: Iterable<number>;
  readonly maxLength: number | undefined;
  /** The id before each text, if there is one. */
  readonly startId?: number;
  readonly added: readonly AddedToken[];
  readonly normalize: (text: string) => string;
  /** The words of a normalized text without added tokens. */
  readonly words: (text: string) => Iterable<Word>;
}

const MAX_LENGTH = 2 ** 20;

export function tokenizer(scheme: Scheme): Tokenizer {
  const { kind, startId, endId, padId, maxLength } = scheme;
  const sections = sectionsOf(scheme.added, scheme.normalize);
  let idLimit = 0;
  for (const id of scheme.vocabularyIds) idLimit = Math.max(idLimit, id + 1);
  for (const { id } of scheme.added) idLimit = Math.max(idLimit, id + 1);
  const start = startId === undefined ? [] : [startId];
  const wordsOf = (text: string): Word[] =>
    sections(text).flatMap((section) =>
      "token" in section ? { ids: [section.token.id], text: section.text } : [...scheme.words(section.text)],
    );
  return {
    kind,
    idLimit,
    endId,
    padId,
    ...(maxLength !== undefined && { maxLength }),
    encode(text, length = maxLength) {
      const room = checkLength(length, start.length + 1);
      const { kept, dropped, droppedText } = cut(wordsOf(text.replaceAll(/\p{Surrogate}/gu, "\uFFFD")), room);
      const ids = [...start, ...kept, endId];
      const tokens = ids.length;
      while (ids.length < (length as number)) ids.push(padId);
      return { ids, tokens, dropped, droppedText };
    },
  };
}

/** How many ids are left for the prompt. */
function checkLength(length: number | undefined, own: number): number {
  if (length !== undefined && Number.isInteger(length) && length >= own && length <= MAX_LENGTH) return length - own;
  throw new FemoError(
    "E_OPTION",
    `The length of a prompt in tokens: expected a whole number from ${own} to ${MAX_LENGTH}, found ${length}.`,
  );
}

/** The first ids of a text, and what is behind them. */
function cut(words: readonly Word[], room: number) {
  const kept: number[] = [];
  let dropped = 0;
  let first = words.length;
  for (const [i, { ids }] of words.entries()) {
    const fit = ids.slice(0, room - kept.length);
    for (const id of fit) kept.push(id);
    if (fit.length < ids.length) first = Math.min(first, i);
    dropped += ids.length - fit.length;
  }
  const droppedText = words
    .slice(first)
    .map(({ text }) => text)
    .join("")
    .trim();
  return { kept, dropped, droppedText };
}
