import { FemoError } from "../errors.js";
import type { Checkpoint } from "../weights/index.js";
import { Renaming } from "../weights/renamed.js";
import { type ScaledCheckpoint, separateScales } from "../weights/scaled-float8.js";
import { countOf, hasPart, type OriginalPart, partOf, shapeOf } from "./original-parts.js";

/** A text encoder of a single file: its weights by transformers' names. */
export interface OriginalTextEncoder {
  /** As transformers' `config.json`. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Tensors by transformers' names, where they lie or computed from such. */
  readonly checkpoint: Checkpoint;
}

export interface OriginalClipTextOptions {
  /** Attention heads, which no shape tells. Default: one for every 64 channels. */
  numAttentionHeads?: number;
  /**
   * True for an OpenCLIP by transformers' names, such as `clip_g.safetensors`: its activation is another, and its projection
   * is taken too. Default: false
   */
  openClip?: boolean;
}

/** Of files of ComfyUI's, Stable Diffusion 1 and Stable Diffusion XL. */
const CLIP_PREFIXES = [
  "text_encoders.clip_l.transformer.",
  "text_encoders.clip_l.",
  "cond_stage_model.transformer.",
  "conditioner.embedders.0.transformer.",
];
const CLIP: OriginalPart = {
  what: "the text encoder of CLIP",
  marker: "text_model.embeddings.token_embedding.weight",
  prefixes: CLIP_PREFIXES,
};
/** Files that transformers 5 writes. */
const CLIP_BARE: OriginalPart = {
  what: CLIP.what,
  marker: "embeddings.token_embedding.weight",
  prefixes: CLIP_PREFIXES,
};
const PROJECTION = "text_projection.weight";
const CLIP_PREFIX = "text_model.";
const CLIP_HEAD = 64;

/** What the encoder is made of; a table of the numbers 0 to 76, which old files have, is not of it. */
const CLIP_TEXT = /^(embeddings\.(?!position_ids$)|encoder\.|final_layer_norm\.)/;

const T5: OriginalPart = {
  what: "the encoder of T5 v1.1",
  marker: "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
  prefixes: ["text_encoders.t5xxl.transformer.", "text_encoders.t5xxl."],
};
/** The decoder, and what some files keep beside the weights: the tokenizer's model, a scalar of CLIP's. */
const NOT_T5_ENCODER = /^(?:(?:decoder|lm_head|dec)\.|(?:spiece_model|logit_scale)$)/;
const T5_GGUF: OriginalPart = { what: T5.what, marker: "enc.blk.0.attn_rel_b.weight", prefixes: [] };

/** True if a file has CLIP's text encoder. */
export const isOriginalClipText = (checkpoint: Checkpoint): boolean =>
  hasPart(checkpoint, CLIP) || hasPart(checkpoint, CLIP_BARE);

/** True if a file is a CLIP's text encoder with what projects its pooled token, under transformers' names. */
export const isOriginalClipWithProjection = (checkpoint: Checkpoint): boolean =>
  isOriginalClipText(checkpoint) && checkpoint.get(PROJECTION) !== undefined;

/** True if a file has T5's encoder, under the names of transformers or of llama.cpp. */
export const isOriginalT5 = (checkpoint: Checkpoint): boolean =>
  hasPart(checkpoint, T5) || hasPart(checkpoint, T5_GGUF);

/**
 * The weights of `clip_l.safetensors`, or of a whole CLIP, alone or in a file of several models, with the config that the
 * shapes tell. Names are those of transformers 5, without "text_model."; the image encoder and what belongs to it are left
 * out.
 * @throws FemoError E_WEIGHT if the file has no such encoder, or as `separateScales`; E_CONFIG if its width is no multiple
 *   of 64 and the heads are not given
 */
export async function originalClipText(
  checkpoint: Checkpoint,
  options: OriginalClipTextOptions = {},
): Promise<OriginalTextEncoder> {
  const isBare = !hasPart(checkpoint, CLIP) && hasPart(checkpoint, CLIP_BARE);
  const scaled = await separateScales(partOf(checkpoint, isBare ? CLIP_BARE : CLIP));
  const own = scaled.checkpoint;
  const prefix = isBare ? "" : CLIP_PREFIX;
  const shape = (name: string) => shapeOf(own, prefix + name, 2, CLIP.what) as [number, number];
  const [vocabulary, width] = shape("embeddings.token_embedding.weight");
  const [positions] = shape("embeddings.position_embedding.weight");
  const [hidden] = shape("encoder.layers.0.mlp.fc1.weight");
  const heads = options.numAttentionHeads ?? width / CLIP_HEAD;
  if (!(Number.isInteger(heads) && heads > 0 && width % heads === 0)) {
    throw new FemoError(
      "E_CONFIG",
      `${checkpoint.name}: expected a number of attention heads that divides the width ${width}, found ${heads}. ` +
        "Pass numAttentionHeads, the num_attention_heads of its config.",
    );
  }
  const [projection] = options.openClip ? (shapeOf(own, PROJECTION, 2, CLIP.what) as [number]) : [];
  const config = {
    model_type: "clip_text_model",
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: hidden,
    num_hidden_layers: countOf(own, `${prefix}encoder.layers`),
    num_attention_heads: heads,
    max_position_embeddings: positions,
    ...(projection !== undefined && { projection_dim: projection }),
    hidden_act: options.openClip ? "gelu" : "quick_gelu",
    layer_norm_eps: 1e-5,
    eos_token_id: 2, // as in the config of the published encoder: the greatest id is pooled
  };
  const names = own
    .names()
    .map((name) => [name.slice(prefix.length), name] as const)
    .filter(([name, original]) => original.startsWith(prefix) && CLIP_TEXT.test(name));
  if (projection !== undefined) names.push([PROJECTION, PROJECTION]);
  return { config, checkpoint: renamed(scaled, names) };
}

/**
 * The weights of `t5xxl_fp16.safetensors`, also in 8-bit floating point with or without scales, or of a GGUF file, alone or
 * in a file of several models, with the config that the shapes tell. The embedding is `shared.weight`; the decoder is left
 * out.
 * @throws FemoError E_WEIGHT if the file has no such encoder, or as `separateScales`
 */
export async function originalT5(checkpoint: Checkpoint): Promise<OriginalTextEncoder> {
  const isGguf = hasPart(checkpoint, T5_GGUF);
  const scaled = await separateScales(partOf(checkpoint, isGguf ? T5_GGUF : T5));
  const originals = new Map(
    scaled.checkpoint.names().map((name) => [isGguf ? transformersName(name) : name, name] as const),
  );
  for (const name of originals.keys()) if (NOT_T5_ENCODER.test(name)) originals.delete(name);
  // The encoder's own embedding goes before the one it shares with the decoder.
  const embedding = originals.get("encoder.embed_tokens.weight") ?? originals.get("shared.weight") ?? "shared.weight";
  originals.delete("encoder.embed_tokens.weight");
  originals.set("shared.weight", embedding);

  const shape = (name: string) => {
    const original = originals.get(name) ?? name;
    return shapeOf(scaled.checkpoint, original, 2, T5.what) as [number, number];
  };
  const [vocabulary, width] = shape("shared.weight");
  const [buckets, heads] = shape(T5.marker);
  const [projected] = shape("encoder.block.0.layer.0.SelfAttention.q.weight");
  const [hidden] = shape("encoder.block.0.layer.1.DenseReluDense.wi_0.weight");
  const layers = [...originals.keys()].reduce((count, name) => {
    return Math.max(count, 1 + Number(/^encoder\.block\.(\d{1,9})\./.exec(name)?.[1] ?? -1));
  }, 0);
  const config = {
    model_type: "t5",
    vocab_size: vocabulary,
    d_model: width,
    d_kv: projected / heads,
    d_ff: hidden,
    num_layers: layers,
    num_heads: heads,
    relative_attention_num_buckets: buckets,
    relative_attention_max_distance: 128,
    layer_norm_epsilon: 1e-6,
    feed_forward_proj: "gated-gelu",
    tie_word_embeddings: false,
  };
  return { config, checkpoint: renamed(scaled, originals) };
}

function renamed(scaled: ScaledCheckpoint, names: Iterable<readonly [name: string, original: string]>): Checkpoint {
  const renaming = new Renaming(scaled);
  for (const [name, original] of names) renaming.take(name, original);
  return renaming.checkpoint();
}

const ATTENTION = "layer.0.SelfAttention";
const FEED_FORWARD = "layer.1.DenseReluDense";
/** Parts of a block, from llama.cpp's names to transformers'. */
const T5_PARTS: Readonly<Record<string, string>> = {
  attn_norm: "layer.0.layer_norm",
  attn_q: `${ATTENTION}.q`,
  attn_k: `${ATTENTION}.k`,
  attn_v: `${ATTENTION}.v`,
  attn_o: `${ATTENTION}.o`,
  attn_rel_b: `${ATTENTION}.relative_attention_bias`,
  ffn_norm: "layer.1.layer_norm",
  ffn_gate: `${FEED_FORWARD}.wi_0`,
  ffn_up: `${FEED_FORWARD}.wi_1`,
  ffn_down: `${FEED_FORWARD}.wo`,
};

/** A name of llama.cpp's as transformers'; one that is not known stays. */
function transformersName(name: string): string {
  if (name === "token_embd.weight") return "shared.weight";
  if (name === "enc.output_norm.weight") return "encoder.final_layer_norm.weight";
  const [, block, part = ""] = /^enc\.blk\.(\d+)\.(\w+)\.weight$/.exec(name) ?? [];
  const known = Object.hasOwn(T5_PARTS, part) ? T5_PARTS[part] : undefined;
  return known === undefined ? name : `encoder.block.${block}.${known}.weight`;
}
