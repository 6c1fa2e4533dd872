import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { openTokenizer, type Tokenizer } from "../../src/tokenizers/index.js";
import { memoryFolder } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";

const goldens = fileURLToPath(new URL("../goldens/tokenizers", import.meta.url));
const bytesOf = (path: string): Uint8Array => Uint8Array.from(readFileSync(`${goldens}/${path}`));
const textOf = (path: string): string => readFileSync(`${goldens}/${path}`, "utf8");

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
const jsonOf = (path: string): { [key: string]: Json } => JSON.parse(textOf(path));

/** Opens files of the folder "tokenizer"; values are written as JSON. */
function open(files: Record<string, unknown>): Promise<Tokenizer> {
  const encoder = new TextEncoder();
  const bytes = Object.entries(files).map(([name, content]): [string, Uint8Array] => [
    `tokenizer/${name}`,
    content instanceof Uint8Array
      ? content
      : encoder.encode(typeof content === "string" ? content : JSON.stringify(content)),
  ]);
  return openTokenizer(memoryFolder("m", new Map(bytes)), "tokenizer");
}

const TEXT = "A red fox\r\n狐🦊 é½ <|endoftext|></s> <extra_id_3>! don't\ud800";

/** Damaged files open and encode, or are refused by an error of ours that names the file. */
async function survives(files: Record<string, unknown>): Promise<void> {
  try {
    const tokenizer = await open(files);
    const { ids } = tokenizer.encode(TEXT, 30);
    expect(ids).toHaveLength(30);
    expect(ids.every((id) => Number.isInteger(id) && id >= 0 && id < tokenizer.idLimit)).toBe(true);
  } catch (error) {
    if (!(error instanceof FemoError)) throw error;
    expect(error.code).toMatch(/E_CONFIG|E_FILE/);
    expect(error.message).toMatch(/^m(\/tokenizer\/|: )/);
  }
}

/** JSON with one of its parts replaced, or left out. */
const damaged = (value: Json) =>
  fc
    .tuple(fc.infiniteStream(fc.nat(1e6)), fc.option(fc.jsonValue({ maxDepth: 2 }), { nil: undefined }))
    .map(([draws, replacement]): Json => {
      const copy = structuredClone(value);
      let parent = copy as Record<string, Json>;
      for (;;) {
        const keys = Object.keys(parent);
        const key = keys[(draws.next().value as number) % keys.length];
        if (key === undefined) return copy;
        const child = parent[key];
        const deeper = typeof child === "object" && child !== null && (draws.next().value as number) % 4 > 0;
        if (deeper) parent = child as Record<string, Json>;
        else {
          if (replacement === undefined) delete parent[key];
          else parent[key] = replacement as Json;
          return copy;
        }
      }
    });

describe("damaged files never crash", () => {
  test.each(["clip-json", "t5-json"])("tokenizer.json of %s", async (name) => {
    await fc.assert(
      fc.asyncProperty(damaged(jsonOf(`${name}/tokenizer.json`)), (file) => survives({ "tokenizer.json": file })),
      { numRuns: 100 },
    );
  });

  test.each(["clip/tokenizer_config.json", "t5-json/tokenizer_config.json", "clip/special_tokens_map.json"])(
    "%s",
    async (path) => {
      const [folder, name] = path.split("/") as [string, string];
      const rest =
        folder === "clip"
          ? { "vocab.json": textOf("clip/vocab.json"), "merges.txt": textOf("clip/merges.txt") }
          : { "tokenizer.json": textOf(`${folder}/tokenizer.json`) };
      await fc.assert(
        fc.asyncProperty(damaged(jsonOf(path)), (file) => survives({ ...rest, [name]: file })),
        { numRuns: 60 },
      );
    },
  );

  test("vocab.json and merges.txt", async () => {
    const lines = textOf("clip/merges.txt").split("\n");
    await fc.assert(
      fc.asyncProperty(
        damaged(jsonOf("clip/vocab.json")),
        fc.nat(lines.length),
        fc.string({ maxLength: 12 }),
        async (vocab, at, line) => {
          await survives({ "vocab.json": vocab, "merges.txt": lines.join("\n") });
          await survives({
            "vocab.json": textOf("clip/vocab.json"),
            "merges.txt": lines.toSpliced(at, 1, line).join("\n"),
          });
        },
      ),
      { numRuns: 30 },
    );
  });

  test("spiece.model, changed or cut off", async () => {
    const model = bytesOf("t5/spiece.model");
    const place = fc.oneof(fc.nat(6000), fc.nat(model.length - 1)); // the pieces are in the first few thousand bytes
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(place, fc.nat(255)), { maxLength: 3 }),
        fc.option(place, { nil: model.length, freq: 4 }),
        (changes, end) => {
          const copy = model.slice(0, end);
          for (const [at, byte] of changes) copy[at] = byte;
          return survives({ "spiece.model": copy });
        },
      ),
      { numRuns: 60 },
    );
  });
});

describe("is refused, with file and place", () => {
  const clip = () => jsonOf("clip-json/tokenizer.json") as { model: { [key: string]: Json }; [key: string]: Json };
  const t5 = () => jsonOf("t5-json/tokenizer.json") as { model: { [key: string]: Json }; [key: string]: Json };
  const charsmap = (bytes: number[]) => ({
    ...t5(),
    normalizer: { type: "Precompiled", precompiled_charsmap: btoa(String.fromCharCode(...bytes)) },
  });

  test.each<[string, unknown, string]>([
    ["no object", [], "the file"],
    ["no model", { ...clip(), model: undefined }, "model"],
    ["a model of words", { ...clip(), model: { type: "WordPiece", vocab: {} } }, 'found "WordPiece"'],
    [
      "byte pairs without an end of words",
      { ...clip(), model: { ...clip().model, end_of_word_suffix: null } },
      "end_of_word_suffix",
    ],
    [
      "an id that is no whole number",
      { ...clip(), model: { ...clip().model, vocab: { a: 0.5 } } },
      'model.vocab."a": expected an id',
    ],
    ["a negative id", { ...clip(), model: { ...clip().model, vocab: { a: -1 } } }, "expected an id"],
    ["an id beyond every model", { ...clip(), model: { ...clip().model, vocab: { a: 2 ** 31 } } }, "expected an id"],
    [
      "a token without end",
      { ...clip(), model: { ...clip().model, vocab: { ["a".repeat(5000)]: 1 } } },
      "at most 128 characters",
    ],
    [
      "a merge of three",
      { ...clip(), model: { ...clip().model, merges: ["a b c"] } },
      "model.merges.0: expected two tokens",
    ],
    [
      "a merge of what is not there",
      { ...clip(), model: { ...clip().model, merges: [["a", "狐"]] } },
      "expected tokens of the vocabulary",
    ],
    ["a merge to what is not there", { ...clip(), model: { ...clip().model, merges: [["!", "!"]] } }, 'found "!!"'],
    ["a normalizer of others", { ...clip(), normalizer: { type: "Lowercase" } }, "normalizer: expected"],
    [
      "a regular expression of its own",
      { ...clip(), pre_tokenizer: { type: "Split", pattern: { Regex: "(a+)+$" }, behavior: "Removed" } },
      "pre_tokenizer: expected",
    ],
    ["added tokens of two ids", { ...clip(), added_tokens: [{ id: 3, content: "<|endoftext|>" }] }, "has the id 3"],
    ["an added token without an id", { ...clip(), added_tokens: [{ content: "x" }] }, "added_tokens.0.id"],
    [
      "a vocabulary without its end",
      { ...clip(), added_tokens: [], model: { ...clip().model, merges: [], vocab: { a: 0 } } },
      '"<|startoftext|>" (bos_token)',
    ],
    ["pieces without scores", { ...t5(), model: { ...t5().model, vocab: [["a"]] } }, "model.vocab.0: expected a piece"],
    ["no pieces", { ...t5(), model: { ...t5().model, vocab: [] } }, "1 to 1048576 pieces"],
    ["an unknown piece that is not there", { ...t5(), model: { ...t5().model, unk_id: 5000 } }, "unk_id"],
    [
      "a normalizer that is no base64",
      { ...t5(), normalizer: { type: "Precompiled", precompiled_charsmap: "?" } },
      "base64",
    ],
    ["a table of characters that is cut off", charsmap([8, 0, 0, 0, 1, 2]), "a table of characters"],
    ["replacements without an end", charsmap([4, 0, 0, 0, 1, 2, 3, 4, 65]), "a zero behind the last"],
    [
      "a replacement by a whole text",
      charsmap([4, 0, 0, 0, 1, 2, 3, 4, ...new Array(65).fill(65), 0]),
      "at most 64 bytes",
    ],
  ])("a tokenizer.json with %s", async (_, file, message) => {
    const text = await femoError("E_CONFIG", () => open({ "tokenizer.json": file }));
    expect(text).toContain("m/tokenizer/");
    expect(text).toContain(message);
  });

  test.each<[string, unknown, string]>([
    ["another class", { tokenizer_class: "LlamaTokenizer" }, 'found "LlamaTokenizer"'],
    ["the class of the other", { tokenizer_class: "T5Tokenizer" }, "expected CLIPTokenizer"],
    ["padding at the left", { padding_side: "left" }, "padding_side"],
    ["an end that is not in the vocabulary", { eos_token: "<eos>" }, '"<eos>" (eos_token) has no id'],
    ["a length of nothing", { model_max_length: 0 }, "model_max_length"],
  ])("a tokenizer_config.json with %s", async (_, config, message) => {
    const files = { "tokenizer.json": clip(), "tokenizer_config.json": config };
    expect(await femoError("E_CONFIG", () => open(files))).toContain(message);
  });

  test("a folder without a tokenizer, and what to add is said", async () => {
    const text = await femoError("E_FILE", () => open({ "tokenizer_config.json": {} }));
    expect(text).toContain("tokenizer/vocab.json and merges.txt (CLIP), or spiece.model (T5)");
    expect(await femoError("E_FILE", () => open({ "vocab.json": {} }))).toContain("merges.txt");
  });

  test("a spiece.model that is none, or not of pieces by their likelihood", async () => {
    expect(await femoError("E_CONFIG", () => open({ "spiece.model": new Uint8Array([255, 255]) }))).toContain(
      "cut off",
    );
    expect(await femoError("E_CONFIG", () => open({ "spiece.model": new Uint8Array(0) }))).toContain("what is unknown");
    // trainer_spec { model_type: BPE }
    expect(await femoError("E_CONFIG", () => open({ "spiece.model": new Uint8Array([0x12, 2, 0x18, 2]) }))).toContain(
      "unigram",
    );
  });
});

test("a tokenizer.json of T5 in its older form, with the same stages in other words, gives the same ids", async () => {
  const file = jsonOf("t5-json/tokenizer.json");
  const older = {
    ...file,
    normalizer: {
      type: "Sequence",
      normalizers: [
        file.normalizer as Json,
        { type: "Strip", strip_left: false, strip_right: true },
        { type: "Replace", pattern: { Regex: " {2,}" }, content: "▁" },
      ],
    },
    pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
  };
  const [ours, theirs] = await Promise.all([open({ "tokenizer.json": file }), open({ "tokenizer.json": older })]);
  for (const text of JSON.parse(textOf("texts.json")) as string[])
    expect(theirs.encode(text, 40)).toEqual(ours.encode(text, 40));
});
