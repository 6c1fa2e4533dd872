import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { openTokenizer, type Tokenizer } from "../../src/tokenizers/index.js";
import { anyCharacter } from "../unicode.js";
import { femoError } from "../weights/helpers.js";

const goldens = fileURLToPath(new URL("../goldens/tokenizers", import.meta.url));
const texts = JSON.parse(readFileSync(`${goldens}/texts.json`, "utf8")) as string[];

describe.each(["clip", "clip-json", "t5", "t5-identity"])("%s", (name) => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = await openTokenizer(nodeFolder(goldens), name);
  });

  test("a text that is cut keeps its first tokens and its end", () => {
    fc.assert(
      fc.property(fc.constantFrom(...texts), fc.integer({ min: 2, max: 40 }), (text, length) => {
        const whole = tokenizer.encode(text, 4000);
        const part = tokenizer.encode(text, length);
        expect(part.ids).toHaveLength(length);
        if (whole.tokens <= length) {
          expect(part).toEqual({ ...whole, ids: whole.ids.slice(0, length) });
          expect([part.dropped, part.droppedText]).toEqual([0, ""]);
        } else {
          expect(part.ids).toEqual([...whole.ids.slice(0, length - 1), tokenizer.endId]);
          expect(part.dropped).toBe(whole.tokens - length);
        }
      }),
    );
  });

  const hostile = fc
    .array(
      fc.oneof(
        anyCharacter,
        fc.constantFrom(
          "\ud800",
          "\udfff",
          "\u0301",
          "\u200d",
          "👩‍👩‍👧‍👦",
          "<|endoftext|>",
          "</s>",
          "<unk>",
          " ",
          "\r\n",
          "שלום",
        ),
        fc.string({ maxLength: 20 }),
      ),
      { maxLength: 30 },
    )
    .map((parts) => parts.join(""));

  test("any string becomes ids of the vocabulary", () => {
    fc.assert(
      fc.property(hostile, fc.integer({ min: 2, max: 90 }), (text, length) => {
        const { ids, tokens, dropped } = tokenizer.encode(text, length);
        expect(ids).toHaveLength(length);
        expect(ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.idLimit)).toBe(true);
        expect(ids[tokens - 1]).toBe(tokenizer.endId);
        expect(ids.slice(tokens).every((id) => id === tokenizer.padId)).toBe(true);
        expect(dropped === 0 || tokens === length).toBe(true);
      }),
      { numRuns: 150 },
    );
  });

  test("half a surrogate pair counts as U+FFFD", () => {
    expect(tokenizer.encode("a\ud83e b\udd8a\ud83e", 40)).toEqual(tokenizer.encode("a\ufffd b\ufffd\ufffd", 40));
  });

  test.each([-1, 0, 1.5, Number.NaN, 2 ** 21, Number.POSITIVE_INFINITY])("%d tokens are refused", async (length) => {
    expect(await femoError("E_OPTION", () => tokenizer.encode("a", length))).toContain(
      "The length of a prompt in tokens",
    );
  });
});

test.each(
  ["clip", "t5"].flatMap((name) =>
    [
      ["words", "the red fox "],
      ["one word", "aredfox"],
      ["an emoji of seven code points", "👩‍👩‍👧‍👦"],
      ["marks on one letter", "\u0301"],
      ["blanks", " "],
      ["beginnings of a special token", "<|endoftext"],
      ["halves of surrogate pairs", "\udc00"],
    ].map(([what, part]) => [name, what, part] as [string, string, string]),
  ),
)("%s takes thirty thousand units of %s", async (name, _, part) => {
  const tokenizer = await openTokenizer(nodeFolder(goldens), name);
  const { ids, tokens } = tokenizer.encode(`x${part.repeat(30_000 / part.length)}`, 77);
  expect(ids).toHaveLength(77);
  expect(tokens).toBeGreaterThan(1);
});

test("what was cut off is told in words, from the first that is not whole", async () => {
  const clip = await openTokenizer(nodeFolder(goldens), "clip");
  const t5 = await openTokenizer(nodeFolder(goldens), "t5");
  for (const tokenizer of [clip, t5]) {
    const { tokens } = tokenizer.encode("a red fox", 77);
    const cut = tokenizer.encode("a red fox  at Night, near 狐 <|endoftext|> ½", tokens);
    expect(cut.ids).toEqual(tokenizer.encode("a red fox", tokens).ids);
    expect(cut.droppedText).toBe(
      tokenizer === clip ? "at night, near 狐 <|endoftext|> ½" : "at Night, near 狐 <|endoftext|> 1⁄2",
    );
  }
  expect(clip.encode(`a ${"x".repeat(50)}`, 20).droppedText).toBe("x".repeat(50));
});

test("the length is the config's unless told, if it has a sensible one", async () => {
  const open = (name: string) => openTokenizer(nodeFolder(goldens), name);
  expect((await open("clip")).encode("a fox").ids).toHaveLength(77);
  expect((await open("clip-json")).maxLength).toBe(20);
  const t5 = await open("t5-json"); // says 1e30
  expect(t5.maxLength).toBeUndefined();
  await femoError("E_OPTION", () => t5.encode("a fox"));
  expect(t5.encode("", 4).ids).toEqual([1, 0, 0, 0]);
});

test("the special tokens of the vocabularies have their ids", async () => {
  const clip = await openTokenizer(nodeFolder(goldens), "clip");
  expect(clip.idLimit).toBe(clip.endId + 1);
  expect(clip.encode("", 4).ids).toEqual([clip.endId - 1, clip.endId, clip.endId, clip.endId]);
  const t5 = await openTokenizer(nodeFolder(goldens), "t5");
  expect([t5.endId, t5.padId]).toEqual([1, 0]);
  // The sentinels are behind SentencePiece's pieces, the last one first.
  expect(t5.encode("<extra_id_0><extra_id_99>", 3).ids).toEqual([t5.idLimit - 1, t5.idLimit - 100, 1]);
});
