import type { AddedToken } from "./added-tokens.js";
import { BytePairs } from "./byte-pairs.js";
import { type Tokenizer, tokenizer, wordsIn } from "./tokenizer.js";

/** What CLIP's tokenizer is made of. */
export interface ClipVocabulary {
  /** Symbols, in the alphabet of bytes, to ids; the last of a word ends in "</w>". */
  readonly vocab: ReadonlyMap<string, number>;
  /** Pairs of symbols that are joined, first those to join first; each pair and what it makes is in the vocabulary. */
  readonly merges: readonly (readonly [string, string])[];
  readonly added: readonly AddedToken[];
  readonly startId: number;
  readonly endId: number;
  readonly unknownId: number;
  readonly padId: number;
  readonly maxLength: number | undefined;
}

const END_OF_WORD = "</w>";

/** CLIP's tokenizer as `CLIPTokenizer` of transformers 5 has it: byte pairs in lower-case words, between a start and an end. */
export function clipTokenizer(vocabulary: ClipVocabulary): Tokenizer {
  const { vocab, merges, added, startId, endId, unknownId, padId, maxLength } = vocabulary;
  const idOf = (symbol: string): number => vocab.get(symbol) ?? unknownId;
  const pairs = new BytePairs(merges.map(([left, right]) => [idOf(left), idOf(right), idOf(left + right)]));
  const inside = Int32Array.from(BYTE_ALPHABET, idOf);
  const last = Int32Array.from(BYTE_ALPHABET, (symbol) => idOf(symbol + END_OF_WORD));
  const encoder = new TextEncoder();
  const encodeWord = (word: string): number[] => {
    const bytes = encoder.encode(word);
    const symbols = Int32Array.from(bytes, (byte, i) => (i < bytes.length - 1 ? inside : last)[byte] as number);
    return pairs.merge(symbols);
  };
  return tokenizer({
    kind: "clip",
    vocabularyIds: vocab.values(),
    startId,
    endId,
    padId,
    maxLength,
    added,
    normalize: normalizeClip,
    words: (text) => wordsIn(text, WORDS, (word) => wordParts(word).flatMap(encodeWord)),
  });
}

/** Each code point is lowered by itself: the string's own `toLowerCase` minds what is around a sigma, transformers does not. */
const normalizeClip = (text: string): string =>
  Array.from(text.normalize("NFC").replaceAll(/\p{White_Space}+/gu, " "), (point) => point.toLowerCase()).join("");

// Not \s, which has U+FEFF and lacks U+0085.
const WORDS = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\p{White_Space}\p{L}\p{N}]+/gu;

/** Words are cut once more, by GPT-2's pattern, which cuts but these: what reads like a special token and is none. */
const wordParts = (word: string): string[] =>
  word === "<|startoftext|>" || word === "<|endoftext|>" ? ["<|", word.slice(2, -2), "|>"] : [word];

/** The characters by which GPT-2's vocabularies write bytes: printable ones for themselves, the others from U+0100 on. */
const BYTE_ALPHABET: readonly string[] = (() => {
  let next = 0x100;
  const isPrintable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
})();
