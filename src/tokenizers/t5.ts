import type { AddedToken } from "./added-tokens.js";
import { type Tokenizer, tokenizer, wordsIn } from "./tokenizer.js";
import { type Piece, Unigram } from "./unigram.js";

/** What T5's tokenizer is made of. */
export interface T5Vocabulary {
  /** By id. */
  readonly pieces: readonly Piece[];
  readonly added: readonly AddedToken[];
  readonly endId: number;
  readonly unknownId: number;
  readonly padId: number;
  readonly maxLength: number | undefined;
  /** From `readCharsmap`; without it text stays as it is. */
  readonly normalize: ((text: string) => string) | undefined;
}

const SPACE = "\u2581";

/** T5's tokenizer as `T5Tokenizer` of transformers 5 has it: the likeliest pieces of words, and an end. */
export function t5Tokenizer(vocabulary: T5Vocabulary): Tokenizer {
  const { pieces, added, endId, unknownId, padId, maxLength, normalize = (text) => text } = vocabulary;
  const unigram = new Unigram(pieces, unknownId);
  return tokenizer({
    kind: "t5",
    vocabularyIds: pieces.keys(),
    endId,
    padId,
    maxLength,
    added,
    normalize,
    words: (text) =>
      wordsIn(text, /\P{White_Space}+/gu, (word) => {
        const marked = word.startsWith(SPACE) ? word : SPACE + word;
        return (marked.match(/\u2581[^\u2581]*/g) as string[]).flatMap((part) => unigram.encode(part));
      }),
  });
}
