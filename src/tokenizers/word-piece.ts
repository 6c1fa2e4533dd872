import { FemoError } from "../errors.js";
import type { AddedToken } from "./added-tokens.js";
import { type Tokenizer, tokenizer, wordsIn } from "./tokenizer.js";

/** Longer words are unknown, whatever they are made of. */
const MAX_WORD = 100;
const [START, END, UNKNOWN, PAD, MASK] = ["[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]"] as const;

export interface WordPieceOptions {
  /** Tokens that follow those of the vocabulary, such as "[DEC]". */
  readonly more?: readonly string[];
  /** Named in errors. Default: "vocab.txt" */
  readonly file?: string;
}

/**
 * BERT's tokenizer of lower-case words (Devlin et al., arXiv 1810.04805), as transformers' `BertTokenizer` of
 * bert-base-uncased: words without accents, cut into the longest pieces that the vocabulary has, between [CLS] and [SEP].
 * @param vocabulary the text of `vocab.txt`: a piece a line, ids in their order
 * @throws FemoError E_CONFIG if it lacks [CLS], [SEP], [UNK] or [PAD]
 */
export function wordPieceTokenizer(vocabulary: string, options: WordPieceOptions = {}): Tokenizer {
  const { more = [], file = "vocab.txt" } = options;
  const lines = vocabulary.replace(/\r?\n$/, "").split(/\r?\n/);
  const ids = new Map([...lines, ...more].map((piece, id) => [piece, id]));
  const idOf = (piece: string): number => {
    const id = ids.get(piece);
    if (id !== undefined) return id;
    throw new FemoError(
      "E_CONFIG",
      `${file}: expected a vocabulary of BERT with ${piece}, found none. Is it the right file?`,
    );
  };
  const [startId, endId, unknownId, padId] = [START, END, UNKNOWN, PAD].map(idOf) as [number, number, number, number];
  const longest = [...ids.keys()].reduce((most, piece) => Math.max(most, piece.length), 0);

  const encodeWord = (word: string): number[] => {
    if (Array.from(word).length > MAX_WORD) return [unknownId];
    const found: number[] = [];
    for (let start = 0; start < word.length; ) {
      const prefix = start > 0 ? "##" : "";
      let end = Math.min(word.length, start + longest);
      while (end > start && !ids.has(prefix + word.slice(start, end))) end--;
      if (end === start) return [unknownId];
      found.push(ids.get(prefix + word.slice(start, end)) as number);
      start = end;
    }
    return found;
  };
  const special = [START, END, UNKNOWN, PAD, MASK, ...more].filter((content) => ids.has(content));
  return tokenizer({
    kind: "bert",
    vocabularyIds: ids.values(),
    startId,
    endId,
    padId,
    maxLength: 512,
    added: special.map((content): AddedToken => {
      return {
        content,
        id: ids.get(content) as number,
        normalized: false,
        lstrip: false,
        rstrip: false,
        singleWord: false,
      };
    }),
    normalize: normalizeBert,
    words: (text) => wordsIn(text, WORDS, encodeWord),
  });
}

/** No control characters, no accents, no capitals. */
const normalizeBert = (text: string): string =>
  Array.from(
    text
      .replaceAll(/[\t\n\r]/g, " ")
      .replaceAll(/[\p{C}\uFFFD]/gu, "")
      .replaceAll(/\p{White_Space}/gu, " ")
      .normalize("NFD")
      .replaceAll(/\p{Mn}/gu, ""),
    (point) => point.toLowerCase(),
  ).join("");

/** Chinese, Japanese and Korean ideographs are words of their own, as are marks of punctuation and ASCII's symbols. */
const IDEOGRAPHS =
  "\\u{4E00}-\\u{9FFF}\\u{3400}-\\u{4DBF}\\u{20000}-\\u{2A6DF}\\u{2A700}-\\u{2B73F}\\u{2B740}-\\u{2B81F}\\u{2B920}-\\u{2CEAF}\\u{F900}-\\u{FAFF}\\u{2F800}-\\u{2FA1F}";
const MARKS = "\\p{P}\\u0021-\\u002F\\u003A-\\u0040\\u005B-\\u0060\\u007B-\\u007E";
const WORDS = new RegExp(`[${IDEOGRAPHS}]|[${MARKS}]|[^\\s${IDEOGRAPHS}${MARKS}]+`, "gu");
