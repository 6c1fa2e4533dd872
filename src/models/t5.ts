import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { Graph, type Value } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import type { Checkpoint } from "../weights/index.js";
import { type ActivationName, activationNames, activations } from "./activations.js";
import { epsilon, layerCount, parseConfig, positive } from "./config.js";

/** The config of transformers' `T5EncoderModel`, in camelCase. */
export interface T5Config {
  vocabSize: number;
  /** D */
  dModel: number;
  /** Width of a head. */
  dKv: number;
  /** Width of the feed-forward layer. */
  dFf: number;
  numLayers: number;
  numHeads: number;
  /** Distances between tokens fall into so many buckets, each with a bias; see `relativePositionBucket`. */
  relativeAttentionNumBuckets: number;
  relativeAttentionMaxDistance: number;
  layerNormEpsilon: number;
  denseActFn: ActivationName;
  /** Whether the feed-forward layer's activation gates a second product (T5 v1.1). */
  isGatedAct: boolean;
}

const jsonConfig = z.object({
  vocab_size: z._default(positive.check(z.maximum(4_194_304)), 32_128),
  d_model: z._default(positive, 512),
  d_kv: z._default(positive, 64),
  d_ff: z._default(positive, 2048),
  num_layers: z._default(layerCount, 6),
  num_heads: z._default(positive, 8),
  relative_attention_num_buckets: z._default(positive.check(z.minimum(4)), 32),
  relative_attention_max_distance: z._default(positive, 128),
  layer_norm_epsilon: z._default(epsilon, 1e-6),
  feed_forward_proj: z._default(z.string(), "relu"),
  dense_act_fn: z.nullish(z.string()),
  is_gated_act: z.nullish(z.boolean()),
});

/**
 * Reads a `text_encoder_2/config.json`; fields left out have transformers' defaults, fields that do not touch the encoder
 * are ignored.
 * @param file named in errors
 * @throws FemoError E_CONFIG naming each bad field
 */
export function t5ConfigFromJson(json: unknown, file = "text_encoder_2/config.json"): T5Config {
  const c = parseConfig(jsonConfig, json, file, "T5EncoderModel");
  const { gated, activation } = feedForward(c.feed_forward_proj);
  const denseActFn = activationNames.find((name) => name === (c.dense_act_fn ?? activation));
  if (denseActFn === undefined) {
    const found =
      c.dense_act_fn === undefined ? `feed_forward_proj: ${c.feed_forward_proj}` : `dense_act_fn: ${c.dense_act_fn}`;
    throw new FemoError(
      "E_CONFIG",
      `${file}: ${found}: expected one of ${activationNames.join(", ")}, or "gated-" before it`,
    );
  }
  const [buckets, distance] = [c.relative_attention_num_buckets, c.relative_attention_max_distance];
  if (distance <= exactDistances(buckets)) {
    throw new FemoError(
      "E_CONFIG",
      `${file}: relative_attention_max_distance: expected more than a quarter of the ${buckets} buckets, found ${distance}`,
    );
  }
  return {
    vocabSize: c.vocab_size,
    dModel: c.d_model,
    dKv: c.d_kv,
    dFf: c.d_ff,
    numLayers: c.num_layers,
    numHeads: c.num_heads,
    relativeAttentionNumBuckets: buckets,
    relativeAttentionMaxDistance: distance,
    layerNormEpsilon: c.layer_norm_epsilon,
    denseActFn,
    isGatedAct: c.is_gated_act ?? gated,
  };
}

/** "relu", "gated-gelu": by transformers' rule the latter, and no other, means GELU by its tanh. */
function feedForward(proj: string): { gated: boolean; activation: string } {
  const gated = proj.startsWith("gated-");
  return { gated, activation: proj === "gated-gelu" ? "gelu_new" : gated ? proj.slice("gated-".length) : proj };
}

/** Distances in one direction that have a bucket each. */
const exactDistances = (buckets: number): number => Math.floor(Math.floor(buckets / 2) / 2);

/**
 * The bucket of a distance (key's place - query's), 0 to `numBuckets` - 1: the first half for keys before and at the query,
 * the second for those behind it; in each half one for every small distance, and from there on, as far as `maxDistance`,
 * wider and wider ones. Rounded as transformers does, in float32.
 */
export function relativePositionBucket(distance: number, numBuckets: number, maxDistance: number): number {
  const half = Math.floor(numBuckets / 2);
  const exact = exactDistances(numBuckets);
  const r = Math.abs(distance);
  const base = distance > 0 ? half : 0;
  if (r < exact) return base + r;
  const { fround, log } = Math;
  const share = fround(fround(log(fround(r / exact))) / fround(log(maxDistance / exact)));
  return base + Math.min(half - 1, exact + Math.floor(fround(share * (half - exact))));
}

/** Names of the graph's input and output and of the symbol for how many tokens there are. */
export const t5Names = { ids: "ids", hidden: "last_hidden_state", tokens: "tokens" } as const;

/**
 * Encoder of T5 (Raffel et al., arXiv 1910.10683) and T5 v1.1, transformers' `T5EncoderModel`; tensor names are those of
 * `withT5Names`. From "ids", int64 [B, T], to "last_hidden_state", [B, T, D]. All tokens see all, padding too: nothing is
 * masked. Scores of attention are not scaled.
 */
export function t5Encoder(config: T5Config): Graph {
  const { dModel, numHeads } = config;
  const graph = new Graph();
  const linear = (x: Value, name: string, outFeatures: number): Value =>
    x.linear(graph.weight(`${name}.weight`, [outFeatures, x.shape.at(-1) as number]), null);
  const norm = (x: Value, name: string): Value =>
    x.rmsNorm(config.layerNormEpsilon, graph.weight(`${name}.weight`, [dModel]));

  const attention = (x: Value, name: string, bias: Value): Value => {
    const [q, k, v] = ["q", "k", "v"].map((part) => linear(x, `${name}.${part}`, numHeads * config.dKv)) as [
      Value,
      Value,
      Value,
    ];
    return linear(q.attention(k, v, numHeads, { bias, scale: 1 }), `${name}.o`, dModel);
  };
  const feedForward = (x: Value, name: string): Value => {
    const activate = activations[config.denseActFn];
    const wide = (part: string): Value => linear(x, `${name}.${part}`, config.dFf);
    const h = config.isGatedAct ? activate(wide("wi_0")).mul(wide("wi_1")) : activate(wide("wi"));
    return linear(h, `${name}.wo`, dModel);
  };

  const ids = graph.input(t5Names.ids, [BATCH, t5Names.tokens], "int64");
  const bias = positionBias(graph, config, ids);
  let x = graph.weight("shared.weight", [config.vocabSize, dModel]).gather(ids); // [B, T, D]
  for (let i = 0; i < config.numLayers; i++) {
    const [first, second] = [0, 1].map((layer) => `encoder.block.${i}.layer.${layer}`) as [string, string];
    x = x.add(attention(norm(x, `${first}.layer_norm`), `${first}.SelfAttention`, bias));
    x = x.add(feedForward(norm(x, `${second}.layer_norm`), `${second}.DenseReluDense`));
  }
  graph.output(t5Names.hidden, norm(x, "encoder.final_layer_norm"));
  return graph;
}

/** What each head adds to its scores by the distance of key and query; the first block has it for all.  [1, heads, T, T] */
function positionBias(graph: Graph, config: T5Config, ids: Value): Value {
  const { relativeAttentionNumBuckets: buckets, relativeAttentionMaxDistance: far } = config;
  const distances = Array.from({ length: 2 * far + 1 }, (_, i) => i - far); // all farther ones are in the last buckets
  const bucketOf = graph.integers(distances.map((distance) => relativePositionBucket(distance, buckets, far)));
  const table = graph.weight("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", [
    buckets,
    config.numHeads,
  ]);
  const at = ids.positions(1);
  const distance = at.unsqueeze(0).sub(at.unsqueeze(1)).clampIntegers(-far, far); // [T, T]
  const row = distance.add(graph.constant(BigInt64Array.of(BigInt(far)), []));
  return table.gather(bucketOf).gather(row).transpose([2, 0, 1]).unsqueeze(0);
}

/**
 * A checkpoint of T5 under the names of this file: the tokens' embedding may be the encoder's own, which goes before the one
 * that it shares with the decoder.
 */
export function withT5Names(checkpoint: Checkpoint): Checkpoint {
  const own = checkpoint.get(OWN_EMBEDDING);
  if (!own) return checkpoint;
  const others = checkpoint.tensors().filter(({ name }) => name !== OWN_EMBEDDING && name !== "shared.weight");
  return checkpoint.withTensors([{ ...own, name: "shared.weight" }, ...others]);
}

const OWN_EMBEDDING = "encoder.embed_tokens.weight";

/** True for the tensors of a whole T5 that its encoder does not use. */
export const isT5DecoderTensor = (name: string): boolean => name.startsWith("decoder.") || name.startsWith("lm_head.");
