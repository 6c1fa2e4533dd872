import { FemoError } from "../errors.js";
import type { FolderSource } from "../weights/folder-source.js";
import { parseJson } from "../weights/json.js";
import { quote } from "../weights/text.js";
import { clipTokenizer } from "./clip.js";
import {
  addedTokens,
  type Role,
  readTokenizerConfig,
  specialToken,
  type TokenizerConfig,
  type TokenSpec,
} from "./config.js";
import { readSentencePiece } from "./sentencepiece.js";
import { t5Tokenizer } from "./t5.js";
import type { Tokenizer } from "./tokenizer.js";
import { type BytePairFile, bytePairs, mergesOf, readTokenizerJson, type UnigramFile } from "./vocabularies.js";

/** Longer files are refused. */
const MAX_MODEL_BYTES = 32 * 2 ** 20;

/** Classes of transformers by kind; the others read any tokenizer.json. */
const CLASSES: Readonly<Record<string, readonly Tokenizer["kind"][]>> = {
  CLIPTokenizer: ["clip"],
  CLIPTokenizerFast: ["clip"],
  T5Tokenizer: ["t5"],
  T5TokenizerFast: ["t5"],
  PreTrainedTokenizerFast: ["clip", "t5"],
  TokenizersBackend: ["clip", "t5"],
};

/**
 * Opens a tokenizer of CLIP's or T5's kind, as transformers 5 would: from tokenizer.json; without it from vocab.json and
 * merges.txt (CLIP) or spiece.model (T5). `tokenizer_config.json` and `special_tokens_map.json` are read if they are there.
 * @param component where it lies in the folder, such as "tokenizer_2"; "." if the folder is the tokenizer's
 * @throws FemoError E_FILE if the files are missing, E_CONFIG if they are malformed or of another kind
 */
export async function openTokenizer(folder: FolderSource, component: string): Promise<Tokenizer> {
  const path = (file: string): string => (component === "." ? file : `${component}/${file}`);
  const config = await readTokenizerConfig(folder, path);
  const vocabulary = await readVocabulary(folder, path);
  const kinds =
    config.className === undefined
      ? undefined
      : Object.hasOwn(CLASSES, config.className)
        ? CLASSES[config.className]
        : [];
  if (kinds && !kinds.includes(vocabulary.kind)) {
    throw new FemoError(
      "E_CONFIG",
      `${config.file}: tokenizer_class: expected ${vocabulary.kind === "clip" ? "CLIPTokenizer" : "T5Tokenizer"}, which the vocabulary is of, found ${quote(config.className as string)}. ` +
        "Only tokenizers of CLIP and T5 are supported.",
    );
  }
  return vocabulary.kind === "clip" ? openClip(vocabulary, config) : openT5(vocabulary, config);
}

async function readVocabulary(
  folder: FolderSource,
  path: (file: string) => string,
): Promise<BytePairFile | UnigramFile> {
  const [json, vocab, merges, model] = ["tokenizer.json", "vocab.json", "merges.txt", "spiece.model"].map(path) as [
    string,
    string,
    string,
    string,
  ];
  const read = async (file: string): Promise<unknown> =>
    parseJson(await folder.readText(file), `${folder.name}/${file}`);
  if (await folder.exists(json)) return readTokenizerJson(await read(json), `${folder.name}/${json}`);
  if (await folder.exists(vocab)) {
    const text = await folder.readText(merges);
    return bytePairs(await read(vocab), mergesOf(text), `${folder.name}/${vocab} and merges.txt`);
  }
  if (await folder.exists(model)) return readSentencePiece(await readBytes(folder, model), `${folder.name}/${model}`);
  throw new FemoError(
    "E_FILE",
    `${folder.name}: expected ${json}, or ${vocab} and merges.txt (CLIP), or spiece.model (T5), found none of them. ` +
      "Add the tokenizer's files from the repository that the model comes from.",
  );
}

async function readBytes(folder: FolderSource, path: string): Promise<Uint8Array> {
  const source = await folder.open(path);
  try {
    if (source.size > MAX_MODEL_BYTES) {
      throw new FemoError(
        "E_CONFIG",
        `${source.name}: expected at most ${MAX_MODEL_BYTES} bytes, found ${source.size}. Is it the right file?`,
      );
    }
    return await source.read(0, source.size);
  } finally {
    await source.close();
  }
}

/** The config's tokens, and for parts that it does not give the tokenizer's own. */
const rolesOf = (config: TokenizerConfig, own: Partial<Record<Role, string>>): Partial<Record<Role, TokenSpec>> => ({
  ...Object.fromEntries(Object.entries(own).map(([role, content]) => [role, specialToken(content)])),
  ...config.roles,
});

function openClip(file: BytePairFile, config: TokenizerConfig): Tokenizer {
  const start = "<|startoftext|>";
  const end = "<|endoftext|>";
  const roles = rolesOf(config, { bos_token: start, eos_token: end, unk_token: end, pad_token: end });
  const added = addedTokens(config, file.added, roles, (token) => file.vocab.get(token));
  const id = idOfRole(added, roles);
  return clipTokenizer({
    vocab: file.vocab,
    merges: file.merges,
    added,
    startId: id("bos_token"),
    endId: id("eos_token"),
    unknownId: id("unk_token"),
    padId: id("pad_token"),
    maxLength: config.maxLength,
  });
}

function openT5(file: UnigramFile, config: TokenizerConfig): Tokenizer {
  const roles = rolesOf(config, { eos_token: "</s>", unk_token: "<unk>", pad_token: "<pad>" });
  const ids = new Map(file.pieces.map(([text], id) => [text, id]));
  const sentinels = [...ids.keys()].filter((text) => /^<extra_id_\d{1,2}>$/.test(text)).map(specialToken);
  const added = addedTokens(config, file.added, roles, (token) => ids.get(token));
  const known = new Set(added.map(({ content }) => content));
  const id = idOfRole(added, roles);
  return t5Tokenizer({
    pieces: file.pieces,
    added: [
      ...added,
      ...sentinels
        .filter(({ content }) => !known.has(content))
        .map((token) => ({ ...token, id: ids.get(token.content) as number })),
    ],
    endId: id("eos_token"),
    unknownId: file.unknownId,
    padId: id("pad_token"),
    maxLength: config.maxLength,
    normalize: file.normalize,
  });
}

/** Ids of the tokens with a part, all of which are among the added ones. */
const idOfRole =
  (added: readonly { content: string; id: number }[], roles: Partial<Record<Role, TokenSpec>>) =>
  (role: Role): number =>
    added.find(({ content }) => content === roles[role]?.content)?.id as number;
