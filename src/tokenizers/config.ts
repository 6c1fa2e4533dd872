import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { safeParse, schemaIssues } from "../schema-issues.js";
import type { FolderSource } from "../weights/folder-source.js";
import { parseJson } from "../weights/json.js";
import { listSome, quote } from "../weights/text.js";
import type { AddedToken } from "./added-tokens.js";

/** Ids, and numbers of tokens, are below this. */
export const MAX_IDS = 2 ** 20;
/** More tokens that are looked for in prompts no tokenizer has. */
const MAX_ADDED = 4096;
/** `model_max_length` of tokenizers without one is about 1e30. */
const MAX_MODEL_LENGTH = 2 ** 20;

/** A token as files describe it; the id may be the vocabulary's. */
export type TokenSpec = Omit<AddedToken, "id"> & { readonly id?: number | undefined };

/** The tokens that a config gives a part to. */
const ROLES = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"] as const;
export type Role = (typeof ROLES)[number];

/** What `tokenizer_config.json` and `special_tokens_map.json` say. */
export interface TokenizerConfig {
  /** For messages. */
  readonly file: string;
  readonly className: string | undefined;
  readonly maxLength: number | undefined;
  readonly roles: Readonly<Partial<Record<Role, TokenSpec>>>;
  /** Further tokens, if the vocabulary has them. */
  readonly extra: readonly TokenSpec[];
  /** Tokens with ids; if there are any, they stand for those of tokenizer.json. */
  readonly added: readonly TokenSpec[] | undefined;
}

export const tokenSchema = z.looseObject({
  content: z.string().check(z.minLength(1), z.maxLength(256)),
  lstrip: z._default(z.boolean(), false),
  rstrip: z._default(z.boolean(), false),
  single_word: z._default(z.boolean(), false),
  normalized: z.optional(z.boolean()),
  special: z.optional(z.boolean()),
});
export const idSchema = z.int().check(z.nonnegative(), z.lt(MAX_IDS));

const namedSchema = z.union([z.string().check(z.minLength(1), z.maxLength(256)), tokenSchema]);
const rolesSchema = z.looseObject({
  ...(Object.fromEntries(ROLES.map((role) => [role, z.nullish(namedSchema)])) as Record<
    Role,
    z.ZodMiniOptional<z.ZodMiniNullable<typeof namedSchema>>
  >),
  additional_special_tokens: z.nullish(z.array(namedSchema).check(z.maxLength(MAX_ADDED))),
  extra_special_tokens: z.nullish(
    z.union([z.array(namedSchema).check(z.maxLength(MAX_ADDED)), z.record(z.string(), namedSchema)]),
  ),
});
const configSchema = z.extend(rolesSchema, {
  tokenizer_class: z.nullish(z.string()),
  model_max_length: z.nullish(z.number().check(z.minimum(1))),
  padding_side: z.nullish(z.literal("right")),
  truncation_side: z.nullish(z.literal("right")),
  split_special_tokens: z.nullish(z.literal(false)),
  added_tokens_decoder: z.nullish(
    z
      .record(z.string().check(z.regex(/^\d{1,7}$/)), tokenSchema)
      .check(z.refine((tokens) => Object.keys(tokens).length <= MAX_ADDED, `more than ${MAX_ADDED} tokens`)),
  ),
});

/** A token that is special: looked for as it is written, unless the file says otherwise. */
export const specialToken = (token: z.infer<typeof namedSchema>): TokenSpec =>
  typeof token === "string"
    ? { content: token, normalized: false, lstrip: false, rstrip: false, singleWord: false }
    : tokenSpec({ special: true, ...token });

export const tokenSpec = (token: z.infer<typeof tokenSchema>, id?: number): TokenSpec => ({
  content: token.content,
  normalized: token.normalized ?? !token.special,
  lstrip: token.lstrip,
  rstrip: token.rstrip,
  singleWord: token.single_word,
  id,
});

/**
 * Reads what is beside a vocabulary; both files may be missing. As in transformers, `special_tokens_map.json` counts only
 * if the other has no `added_tokens_decoder`.
 * @throws FemoError E_CONFIG if one is malformed, or asks for padding or cutting at the left
 */
export async function readTokenizerConfig(
  folder: FolderSource,
  path: (file: string) => string,
): Promise<TokenizerConfig> {
  const file = `${folder.name}/${path("tokenizer_config.json")}`;
  const config = (await readIfThere(folder, path("tokenizer_config.json"), configSchema)) ?? {};
  const decoder = config.added_tokens_decoder;
  const map = decoder ? undefined : await readIfThere(folder, path("special_tokens_map.json"), rolesSchema);
  const named = { ...config, ...map };
  const { model_max_length: length } = config;
  return {
    file,
    className: config.tokenizer_class ?? undefined,
    maxLength: length && length <= MAX_MODEL_LENGTH ? Math.floor(length) : undefined,
    roles: Object.fromEntries(
      ROLES.flatMap((role) => {
        const token = named[role];
        return token ? [[role, specialToken(token)]] : [];
      }),
    ),
    extra: [named.additional_special_tokens, named.extra_special_tokens]
      .flatMap((tokens) => Object.values(tokens ?? {}) as z.infer<typeof namedSchema>[])
      .map(specialToken),
    added: decoder ? Object.entries(decoder).map(([id, token]) => tokenSpec(token, Number(id))) : undefined,
  };
}

async function readIfThere<T>(folder: FolderSource, path: string, schema: z.ZodMiniType<T>): Promise<T | undefined> {
  if (!(await folder.exists(path))) return undefined;
  const file = `${folder.name}/${path}`;
  return checked(schema, parseJson(await folder.readText(path), file), file);
}

/** @throws FemoError E_CONFIG with file and fields */
export function checked<T>(schema: z.ZodMiniType<T>, value: unknown, file: string): T {
  const parsed = safeParse(schema, value);
  if (parsed.success) return parsed.data;
  const issues = listSome(schemaIssues(parsed.error, "the file"));
  throw new FemoError("E_CONFIG", `${file}: malformed. Repair it, or download it again:${issues}`);
}

/**
 * All tokens that are looked for in prompts, with their ids.
 * @param tokens of the vocabulary's file, which those with ids in the config stand for
 * @param roles as the config has them, or the tokenizer's own
 * @param idOf the vocabulary
 * @throws FemoError E_CONFIG if a token has two ids, or one with a part has none
 */
export function addedTokens(
  config: TokenizerConfig,
  tokens: readonly TokenSpec[],
  roles: Readonly<Partial<Record<Role, TokenSpec>>>,
  idOf: (content: string) => number | undefined,
): AddedToken[] {
  const fail = (token: TokenSpec, problem: string): never => {
    throw new FemoError(
      "E_CONFIG",
      `${config.file}: the token ${quote(token.content)} ${problem}. Download the files again.`,
    );
  };
  const found = new Map<string, AddedToken>();
  const add = (token: TokenSpec, role?: string): void => {
    if (found.has(token.content)) return;
    const own = idOf(token.content);
    const id = own ?? token.id;
    if (id !== undefined && token.id !== undefined && id !== token.id) {
      fail(token, `has the id ${token.id}, but ${id} in the vocabulary`);
    }
    if (id === undefined || id >= MAX_IDS) {
      if (role || id !== undefined) fail(token, `(${role ?? "added"}) has no id in the vocabulary`);
      return;
    }
    found.set(token.content, { ...token, id });
  };
  for (const token of config.added ?? tokens) add(token);
  for (const [role, token] of Object.entries(roles)) add(token, role);
  for (const token of config.extra) add(token);
  return [...found.values()];
}
