import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { isObject } from "../weights/json.js";
import { describeValue, quote } from "../weights/text.js";
import { readCharsmap } from "./charsmap.js";
import { checked, idSchema, MAX_IDS, type TokenSpec, tokenSchema, tokenSpec } from "./config.js";
import type { Piece } from "./unigram.js";

/** Byte pairs of CLIP's kind, from tokenizer.json, or from vocab.json and merges.txt. */
export interface BytePairFile {
  readonly kind: "clip";
  readonly vocab: ReadonlyMap<string, number>;
  readonly merges: readonly (readonly [string, string])[];
  readonly added: readonly TokenSpec[];
}

/** Pieces of T5's kind, from tokenizer.json or spiece.model. */
export interface UnigramFile {
  readonly kind: "t5";
  /** By id. */
  readonly pieces: readonly Piece[];
  readonly unknownId: number;
  readonly normalize: ((text: string) => string) | undefined;
  readonly added: readonly TokenSpec[];
}

/** Longer tokens are refused, in UTF-16 units: T5's longest have 16, CLIP's 50. */
const MAX_TOKEN = 128;
/** Of all pieces together, in UTF-16 units; the 250,000 of mT5 have 2 million. */
const MAX_PIECES_LENGTH = 2 ** 22;

const stageSchema = z.looseObject({
  type: z.string(),
  normalizers: z.optional(z.array(z.looseObject({ type: z.string() }))),
  pretokenizers: z.optional(z.array(z.looseObject({ type: z.string() }))),
  precompiled_charsmap: z.nullish(z.string()),
});
type Stage = z.infer<typeof stageSchema>;
const fileSchema = z.looseObject({
  added_tokens: z._default(z.array(z.extend(tokenSchema, { id: idSchema })).check(z.maxLength(4096)), []),
  normalizer: z.nullish(stageSchema),
  pre_tokenizer: z.nullish(stageSchema),
  model: z.looseObject({ type: z.string() }),
});
const bytePairSchema = z.looseObject({
  end_of_word_suffix: z.literal("</w>"),
  continuing_subword_prefix: z.nullish(z.literal("")),
  byte_fallback: z.nullish(z.literal(false)),
  ignore_merges: z.nullish(z.literal(false)),
  dropout: z.optional(z.null()),
});
const unigramSchema = z.looseObject({ unk_id: idSchema, byte_fallback: z.nullish(z.literal(false)) });

/** The stages of normalizing and cutting that are ours, by their names in tokenizer.json. */
const STAGES = {
  clip: { normalizer: ["NFC, Replace, Lowercase"], pre_tokenizer: ["Split, ByteLevel"] },
  t5: {
    normalizer: ["", "Precompiled", "Precompiled, Replace", "Precompiled, Strip, Replace"],
    pre_tokenizer: ["Metaspace", "WhitespaceSplit, Metaspace"],
  },
} as const;

/**
 * The vocabulary of a tokenizer.json. As transformers 5 does, only that is taken: the stages before and behind it are the
 * tokenizer's own, and a file that names others is refused. So no regular expression of a file is ever run.
 * @throws FemoError E_CONFIG if it is malformed, or no tokenizer of CLIP's or T5's kind
 */
export function readTokenizerJson(json: unknown, file: string): BytePairFile | UnigramFile {
  const { added_tokens, normalizer, pre_tokenizer, model } = checked(fileSchema, json, file);
  const added = added_tokens.map(({ id, ...token }) => tokenSpec(token, id));
  const check = (kind: "clip" | "t5"): void => {
    for (const [field, stage] of [
      ["normalizer", normalizer],
      ["pre_tokenizer", pre_tokenizer],
    ] as const) {
      const found = stageNames(stage);
      if (!(STAGES[kind][field] as readonly string[]).includes(found)) {
        throw new FemoError(
          "E_CONFIG",
          `${file}: ${field}: expected ${STAGES[kind][field].filter(Boolean).map(quote).join(" or ")}, as ${kind === "clip" ? "CLIP" : "T5"} has it, found ${quote(found)}. Only tokenizers of CLIP and T5 are supported.`,
        );
      }
    }
  };
  switch (model.type) {
    case "BPE":
      check("clip");
      checked(bytePairSchema, model, `${file}: model`);
      return { ...bytePairs(model.vocab, model.merges, `${file}: model`), added };
    case "Unigram": {
      check("t5");
      const { unk_id } = checked(unigramSchema, model, `${file}: model`);
      const pieces = piecesOf(model.vocab, `${file}: model.vocab`);
      if (unk_id >= pieces.length) {
        throw new FemoError(
          "E_CONFIG",
          `${file}: model.unk_id: expected one of the ${pieces.length} pieces, found ${unk_id}. Download the file again.`,
        );
      }
      return { kind: "t5", pieces, unknownId: unk_id, normalize: charsmapOf(normalizer, file), added };
    }
  }
  throw new FemoError(
    "E_CONFIG",
    `${file}: model.type: expected "BPE" as CLIP has it, or "Unigram" as T5 has it, found ${quote(model.type)}.`,
  );
}

const stagesOf = (stage: Stage | null | undefined): readonly { type: string; [key: string]: unknown }[] =>
  stage?.type === "Sequence" ? (stage.normalizers ?? stage.pretokenizers ?? []) : stage ? [stage] : [];
const stageNames = (stage: Stage | null | undefined): string =>
  stagesOf(stage)
    .map(({ type }) => type)
    .join(", ");

function charsmapOf(normalizer: Stage | null | undefined, file: string): UnigramFile["normalize"] {
  const charsmap = stagesOf(normalizer).find(({ type }) => type === "Precompiled")?.precompiled_charsmap;
  if (charsmap === undefined || charsmap === null || charsmap === "") return undefined;
  const where = `${file}: normalizer.precompiled_charsmap`;
  let binary: string;
  try {
    binary = atob(charsmap as string);
  } catch {
    throw new FemoError(
      "E_CONFIG",
      `${where}: expected base64, found ${quote(String(charsmap))}. Download the file again.`,
    );
  }
  return readCharsmap(
    Uint8Array.from(binary, (unit) => unit.charCodeAt(0)),
    where,
  );
}

const isId = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < MAX_IDS;

/** @throws FemoError E_CONFIG if they are malformed, or a merge is of symbols that are not in the vocabulary */
export function bytePairs(vocab: unknown, merges: unknown, where: string): BytePairFile {
  const fail = (field: string, expected: string, found: string): never => {
    throw new FemoError(
      "E_CONFIG",
      `${where}.${field}: expected ${expected}, found ${found}. Download the file again.`,
    );
  };
  if (!isObject(vocab)) return fail("vocab", "an object of tokens and ids", describeValue(vocab));
  const ids = new Map<string, number>();
  for (const [token, id] of Object.entries(vocab)) {
    if (token.length > MAX_TOKEN) fail(`vocab.${quote(token)}`, `at most ${MAX_TOKEN} characters`, `${token.length}`);
    if (!isId(id)) {
      return fail(`vocab.${quote(token)}`, `an id, a whole number below ${MAX_IDS}`, describeValue(id));
    }
    ids.set(token, id);
  }
  if (!Array.isArray(merges)) return fail("merges", "a list", describeValue(merges));
  if (merges.length > MAX_IDS) fail("merges", `at most ${MAX_IDS}`, `${merges.length}`);
  const pairs = merges.map((merge: unknown, i): readonly [string, string] => {
    const [left, right, more] = typeof merge === "string" ? merge.split(" ") : Array.isArray(merge) ? merge : [];
    if (typeof left !== "string" || typeof right !== "string" || more !== undefined) {
      return fail(`merges.${i}`, "two tokens", describeValue(merge));
    }
    const unknown = [left, right, left + right].find((token) => !ids.has(token));
    if (unknown !== undefined) fail(`merges.${i}`, "tokens of the vocabulary", quote(unknown));
    return [left, right];
  });
  return { kind: "clip", vocab: ids, merges: pairs, added: [] };
}

/** Merges from merges.txt, a pair in each line: empty lines and a line with the version are none. */
export const mergesOf = (text: string): string[] =>
  text.split(/\r?\n/).filter((line) => line !== "" && !line.startsWith("#version"));

/** @throws FemoError E_CONFIG if it is no list of pieces and scores */
export function piecesOf(vocab: unknown, where: string): Piece[] {
  const fail = (field: string, expected: string, found: string): never => {
    throw new FemoError("E_CONFIG", `${where}${field}: expected ${expected}, found ${found}. Download the file again.`);
  };
  if (!Array.isArray(vocab)) return fail("", "a list of pieces and their scores", describeValue(vocab));
  if (vocab.length === 0 || vocab.length > MAX_IDS) fail("", `1 to ${MAX_IDS} pieces`, `${vocab.length}`);
  let total = 0;
  const pieces = vocab.map((entry: unknown, i): Piece => {
    const [piece, score, more] = Array.isArray(entry) ? entry : [];
    if (typeof piece !== "string" || piece.length > MAX_TOKEN || !Number.isFinite(score) || more !== undefined) {
      return fail(`.${i}`, `a piece of at most ${MAX_TOKEN} characters and its score`, describeValue(entry));
    }
    total += piece.length;
    return [piece, score];
  });
  if (total > MAX_PIECES_LENGTH) fail("", `at most ${MAX_PIECES_LENGTH} characters in all pieces`, `${total}`);
  return pieces;
}
