import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { wordPieceTokenizer } from "../../src/tokenizers/index.js";
import { femoError } from "../weights/helpers.js";

const folder = fileURLToPath(new URL("../goldens/tokenizers/bert", import.meta.url));
const vocabulary = readFileSync(`${folder}/vocab.txt`, "utf8");
const expected = JSON.parse(readFileSync(`${folder}/expected.json`, "utf8")) as { text: string; ids: number[] }[];
const bert = wordPieceTokenizer(vocabulary, { more: ["[DEC]", "[ENC]"] });

test("ids equal those of Hugging Face's tokenizers", () => {
  for (const { text, ids } of expected) {
    const { ids: found, tokens } = bert.encode(text);
    expect(found.slice(0, tokens), JSON.stringify(text)).toEqual(ids);
  }
});

test("a text is cut before [SEP]", () => {
  const whole = bert.encode("a photo of a cat");
  const { ids, dropped, droppedText } = bert.encode("a photo of a cat", 5);
  expect(ids).toEqual([...whole.ids.slice(0, 4), bert.endId]);
  expect([dropped, droppedText]).toEqual([2, "a cat"]);
});

test("a long word takes no long time", () => {
  expect(bert.encode("a".repeat(2 ** 20)).tokens).toBe(3);
  expect(bert.encode("a ".repeat(2 ** 16), 2 ** 17).tokens).toBe(2 ** 16 + 2);
});

test("another vocabulary is refused", async () => {
  expect(await femoError("E_CONFIG", () => wordPieceTokenizer("a\nb\n", { file: "v.txt" }))).toContain(
    "v.txt: expected",
  );
});
