import { Trie } from "./trie.js";

/** How much less likely than the least likely piece an unknown character is. */
const UNKNOWN_PENALTY = 10;

/** A piece of text and the logarithm of its probability. */
export type Piece = readonly [text: string, score: number];

/**
 * Cuts words into the pieces that are likeliest together: the unigram language model of SentencePiece
 * (Kudo, arXiv:1804.10959), by Viterbi's algorithm. Of equally likely ways the one with the longer last piece is taken,
 * as Hugging Face's `Unigram` does.
 */
export class Unigram {
  readonly #trie: Trie;
  readonly #scores: Float64Array;
  readonly #unknownScore: number;
  readonly #unknownId: number;

  /**
   * @param pieces by id
   * @param unknownId what characters get that are in no piece; one for neighbours together
   */
  constructor(pieces: readonly Piece[], unknownId: number) {
    this.#trie = new Trie(pieces.map(([text], id) => [text, id] as const).filter(([text]) => text !== ""));
    this.#scores = Float64Array.from(pieces, ([, score]) => score);
    this.#unknownScore = this.#scores.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY) - UNKNOWN_PENALTY;
    this.#unknownId = unknownId;
  }

  /** Ids of a word's pieces. Time and memory grow with its length alone. */
  encode(word: string): number[] {
    // Of each place in the word: the best score of what ends there, its last piece, and where that begins.
    const best = new Float64Array(word.length + 1);
    const ids = new Int32Array(word.length + 1);
    const starts = new Int32Array(word.length + 1).fill(-1);
    const offer = (id: number, start: number, end: number, score: number): void => {
      const total = score + (best[start] as number);
      if (starts[end] !== -1 && total <= (best[end] as number)) return;
      best[end] = total;
      ids[end] = id;
      starts[end] = start;
    };
    for (let start = 0; start < word.length; ) {
      const next = start + ((word.codePointAt(start) as number) > 0xffff ? 2 : 1);
      let known = false;
      this.#trie.at(word, start, (id, end) => {
        offer(id, start, end, this.#scores[id] as number);
        known ||= end === next;
      });
      if (!known) offer(this.#unknownId, start, next, this.#unknownScore);
      start = next;
    }
    const found: number[] = [];
    for (let end = word.length; end > 0; end = starts[end] as number) {
      const id = ids[end] as number;
      if (id !== this.#unknownId || found.at(-1) !== id) found.push(id);
    }
    return found.reverse();
  }
}
