import * as library from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BytePairs } from "../../src/tokenizers/byte-pairs.js";
import { Unigram } from "../../src/tokenizers/unigram.js";

// Hugging Face's JavaScript library is the reference here: another implementation of the same two algorithms. Its types name
// files that Node's resolution does not find.
const { BPE, Unigram: ReferenceUnigram } = library as unknown as {
  BPE: new (config: object) => { bpe(word: string): string[] };
  Unigram: new (config: object, end: string) => { tokenize(word: string): string[] };
};

describe("byte pairs", () => {
  const letters = ["a", "b", "c", "d"];
  const word = fc.array(fc.constantFrom(...letters), { minLength: 1, maxLength: 40 }).map((all) => all.join(""));
  /** Merges that are made as training makes them: each of two symbols that are there before it. */
  const merges = fc.array(fc.tuple(fc.nat(1e6), fc.nat(1e6)), { maxLength: 40 }).map((draws) => {
    const symbols = [...letters, ...letters.map((letter) => `${letter}</w>`)];
    return draws.flatMap(([i, k]) => {
      const left = symbols[i % symbols.length] as string;
      const right = symbols[k % symbols.length] as string;
      if (left.endsWith("</w>") || symbols.includes(left + right) || (left + right).length > 12) return [];
      symbols.push(left + right);
      return [[left, right] as [string, string]];
    });
  });

  test("are joined as the reference joins them", () => {
    fc.assert(
      fc.property(merges, fc.array(word, { minLength: 1, maxLength: 5 }), (pairs, words) => {
        const symbols = [...letters, ...letters.map((l) => `${l}</w>`), ...pairs.map((pair) => pair.join(""))];
        const vocab = Object.fromEntries(symbols.map((symbol, id) => [symbol, id]));
        const id = (symbol: string): number => vocab[symbol] as number;
        const reference = new BPE({
          type: "BPE",
          vocab,
          merges: pairs,
          end_of_word_suffix: "</w>",
          unk_token: "a",
          ignore_merges: false,
        });
        const ours = new BytePairs(pairs.map(([left, right]) => [id(left), id(right), id(left + right)]));
        for (const each of words) {
          const start = Int32Array.from(each, (letter, i) => id(i < each.length - 1 ? letter : `${letter}</w>`));
          expect(ours.merge(start)).toEqual(reference.bpe(each).map(id));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("unigram pieces", () => {
  const letters = fc.constantFrom("a", "b", "c", "🦊", "狐");
  const text = (maxLength: number) => fc.array(letters, { minLength: 1, maxLength }).map((all) => all.join(""));

  test("are cut as the reference cuts them", () => {
    fc.assert(
      fc.property(
        // Some scores are equal, so that ties are decided alike too.
        fc.uniqueArray(fc.tuple(text(4), fc.integer({ min: -8, max: -1 })), {
          selector: ([piece]) => piece,
          minLength: 1,
        }),
        fc.array(text(30), { minLength: 1, maxLength: 5 }),
        (pieces, words) => {
          const vocab: [string, number][] = [["<unk>", 0], ...pieces];
          const reference = new ReferenceUnigram({ type: "Unigram", unk_id: 0, vocab }, "</s>");
          const ours = new Unigram(vocab, 0);
          const idOf = new Map(vocab.map(([piece], id) => [piece, id]));
          for (const word of words) {
            const ids = reference.tokenize(word).map((piece) => idOf.get(piece) ?? 0);
            expect(ours.encode(word)).toEqual(ids.filter((id, i) => id !== 0 || ids[i - 1] !== 0));
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  test("add up to the best score of all ways to cut", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(text(3), fc.double({ min: -9, max: 0, noNaN: true })), {
          selector: ([piece]) => piece,
          minLength: 1,
        }),
        text(7),
        (pieces, word) => {
          const vocab: [string, number][] = [["<unk>", 0], ...pieces];
          const unknown = Math.min(...vocab.map(([, score]) => score)) - 10;
          const best = (rest: readonly string[]): number =>
            rest.length === 0
              ? 0
              : Math.max(
                  ...rest.map((_, i) => {
                    const known = pieces.find(([piece]) => piece === rest.slice(0, i + 1).join(""));
                    const score = known?.[1] ?? (i === 0 ? unknown : Number.NEGATIVE_INFINITY);
                    return score + best(rest.slice(i + 1));
                  }),
                );
          const ids = new Unigram(vocab, 0).encode(word);
          if (ids.includes(0)) return; // neighbours that are unknown count once
          const total = ids.reduce((sum, id) => sum + (vocab[id] as [string, number])[1], 0);
          expect(total).toBeCloseTo(best([...word]), 9);
        },
      ),
    );
  });
});
