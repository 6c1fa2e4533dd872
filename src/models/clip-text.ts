import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { Graph, type Value } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import type { Checkpoint } from "../weights/index.js";
import { type ActivationName, activationNames } from "./activations.js";
import { clipLayers } from "./clip-layers.js";
import { epsilon, layerCount, parseConfig, positive } from "./config.js";

/** The config of transformers' `CLIPTextModel`, in camelCase. */
export interface ClipTextConfig {
  vocabSize: number;
  /** D */
  hiddenSize: number;
  /** Of the MLP. */
  intermediateSize: number;
  /** Of what `CLIPTextModelWithProjection` makes of the pooled token. */
  projectionDim: number;
  numHiddenLayers: number;
  numAttentionHeads: number;
  /** The most tokens that it takes. */
  maxPositionEmbeddings: number;
  hiddenAct: ActivationName;
  layerNormEps: number;
  /** The token that is pooled; see `clipPooledPosition`. */
  eosTokenId: number;
}

const jsonConfig = z.object({
  vocab_size: z._default(positive.check(z.maximum(4_194_304)), 49_408),
  hidden_size: z._default(positive, 512),
  intermediate_size: z._default(positive, 2048),
  projection_dim: z.nullish(positive),
  num_hidden_layers: z._default(layerCount, 12),
  num_attention_heads: z._default(positive, 8),
  max_position_embeddings: z._default(positive, 77),
  hidden_act: z._default(z.enum(activationNames), "quick_gelu"),
  layer_norm_eps: z._default(epsilon, 1e-5),
  eos_token_id: z._default(z.int().check(z.nonnegative()), 49_407),
});

/**
 * Reads a `text_encoder/config.json`; fields left out have transformers' defaults, fields that do not touch inference are
 * ignored.
 * @param file named in errors
 * @throws FemoError E_CONFIG naming each bad field
 */
export function clipTextConfigFromJson(json: unknown, file = "text_encoder/config.json"): ClipTextConfig {
  const c = parseConfig(jsonConfig, json, file, "CLIPTextModel");
  if (c.hidden_size % c.num_attention_heads !== 0) {
    throw new FemoError(
      "E_CONFIG",
      `${file}: hidden_size ${c.hidden_size} does not split into num_attention_heads ${c.num_attention_heads}`,
    );
  }
  return {
    vocabSize: c.vocab_size,
    hiddenSize: c.hidden_size,
    intermediateSize: c.intermediate_size,
    projectionDim: c.projection_dim ?? 512,
    numHiddenLayers: c.num_hidden_layers,
    numAttentionHeads: c.num_attention_heads,
    maxPositionEmbeddings: c.max_position_embeddings,
    hiddenAct: c.hidden_act,
    layerNormEps: c.layer_norm_eps,
    eosTokenId: c.eos_token_id,
  };
}

/**
 * Where the token is whose last hidden state stands for the whole prompt: the first that ends it, or the first of all if
 * none does. An `eosTokenId` of 2, which early configs have by mistake, means the first of the greatest ids instead.
 */
export function clipPooledPosition(ids: readonly number[], { eosTokenId }: ClipTextConfig): number {
  const wanted = eosTokenId === 2 ? ids.reduce((a, b) => Math.max(a, b), 0) : eosTokenId;
  return Math.max(0, ids.indexOf(wanted));
}

/** Names of the graph's inputs and of the symbol for how many tokens there are. */
export const clipTextNames = { ids: "ids", pooledAt: "pooled_at", tokens: "tokens" } as const;

/**
 * What it can give:
 * - `pooled`: the last hidden state at one token of each prompt, [B, D];
 * - `projected`: the same through the text projection of `CLIPTextModelWithProjection`, [B, projectionDim];
 * - `last_hidden_state`: [B, T, D], behind the last norm;
 * - `hidden_states[n]`: [B, T, D] before any norm, 0 the embeddings, n what layer n - 1 gives; -1 is the last layer's;
 * - `normed_hidden_states[n]`: the same behind the last norm, which is what Stable Diffusion takes where it skips layers.
 */
export type ClipTextOutput =
  | "pooled"
  | "projected"
  | "last_hidden_state"
  | `hidden_states[${number}]`
  | `normed_hidden_states[${number}]`;

/**
 * Text encoder of CLIP (Radford et al., arXiv 2103.00020), transformers' `CLIPTextModel`; tensor names are those of
 * `withClipTextNames`. From "ids", int64 [B, T], to what is asked of it, under its own name; the pooled ones also need
 * "pooled_at", int64 [B, 1], which `clipPooledPosition` finds. A token sees itself and those before it, so tokens after the
 * pooled one change nothing of it. What no output needs is not in the graph.
 * @throws FemoError E_GRAPH if there is no such hidden state
 */
export function clipTextEncoder(config: ClipTextConfig, outputs: readonly ClipTextOutput[]): Graph {
  const { hiddenSize: width, numHiddenLayers } = config;
  const graph = new Graph();
  const { norm, layer } = clipLayers(graph, config, { causal: true });

  const ids = graph.input(clipTextNames.ids, [BATCH, clipTextNames.tokens], "int64");
  const words = graph.weight("embeddings.token_embedding.weight", [config.vocabSize, width]);
  const places = graph.weight("embeddings.position_embedding.weight", [config.maxPositionEmbeddings, width]);
  const states = [words.gather(ids).add(places.gather(ids.positions(1)))];
  for (let i = 0; i < numHiddenLayers; i++) states.push(layer(states[i] as Value, `encoder.layers.${i}`));

  const normed = (state: Value): Value => norm(state, "final_layer_norm");
  const last = normed(states[numHiddenLayers] as Value);
  const pooled = (): Value => {
    const at = graph.input(clipTextNames.pooledAt, [BATCH, 1], "int64");
    return last.gatherRows(at).reshape([BATCH, width]);
  };
  const make = (output: ClipTextOutput): Value => {
    if (output === "last_hidden_state") return last;
    if (output === "pooled") return pooled();
    if (output === "projected")
      return pooled().linear(graph.weight("text_projection.weight", [config.projectionDim, width]), null);
    const [, isNormed, at] = /^(normed_)?hidden_states\[(-?\d+)\]$/.exec(output) ?? [];
    const state = at === undefined ? undefined : states.at(Number(at));
    if (state) return isNormed ? normed(state) : state;
    throw new FemoError("E_GRAPH", `${output}: the encoder has hidden states 0 to ${numHiddenLayers}`);
  };
  for (const output of outputs) graph.output(output, make(output));
  return graph;
}

const PREFIX = "text_model.";

/**
 * A checkpoint of CLIP's text encoder under the names of this file, those that transformers 5 writes: older files put
 * "text_model." before them.
 * @throws FemoError E_WEIGHT if it has a tensor by both names
 */
export function withClipTextNames(checkpoint: Checkpoint): Checkpoint {
  const renamed = checkpoint.tensors().map((tensor) => {
    const { name } = tensor;
    return name.startsWith(PREFIX) ? { ...tensor, name: name.slice(PREFIX.length) } : tensor;
  });
  return checkpoint.withTensors(renamed);
}

/**
 * True for what a checkpoint may have beside what `clipTextEncoder` takes for some outputs: what it takes for others, a
 * table of the numbers 0 to 76, and the rest of a whole CLIP.
 */
export function clipTextIgnores(config: ClipTextConfig): (name: string) => boolean {
  const own = new Set(
    clipTextEncoder(config, ["projected"])
      .reachable()
      .weights.map(({ name }) => name),
  );
  return (name) => own.has(name) || OTHERS.test(name);
}

const OTHERS = /^(embeddings\.position_ids$|vision_model\.|visual_projection\.|logit_scale$)/;
