import { Graph, type Value } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import { firstToken, imageTokens } from "./vision-tokens.js";

/** Sizes of BLIP's two halves. */
export interface ImageRewardConfig {
  readonly image: {
    readonly width: number;
    readonly layers: number;
    readonly heads: number;
    readonly size: number;
    readonly patch: number;
  };
  readonly text: {
    readonly width: number;
    readonly layers: number;
    readonly heads: number;
    readonly mlp: number;
    readonly vocabulary: number;
    readonly places: number;
  };
}

/** ImageReward 1.0: ViT-L/16, and BERT of the size "base". */
export const imageRewardConfig: ImageRewardConfig = {
  image: { width: 1024, layers: 24, heads: 16, size: 224, patch: 16 },
  text: { width: 768, layers: 12, heads: 12, mlp: 3072, vocabulary: 30_524, places: 512 },
};

/** Names of the graph's inputs, outputs and of the symbol for how many tokens there are. */
export const imageRewardNames = { image: "image", ids: "ids", state: "state", tokens: "tokens" } as const;

const [IMAGE_EPS, TEXT_EPS] = [1e-6, 1e-12];

/**
 * The network of ImageReward (Xu et al., arXiv 2304.05977): BLIP (Li et al., arXiv 2201.12086), whose text encoder sees the
 * image by cross attention in every layer. From "image", [batch, 3, S, S], and "ids", int64 [batch, tokens], to "state", what
 * it makes of the first token, [batch, width]; `rewardHead` makes the reward of it. Tensor names are those of the release.
 */
export function imageReward({ image: vit, text: bert }: ImageRewardConfig = imageRewardConfig): Graph {
  const graph = new Graph();

  const linear = (x: Value, name: string, out: number): Value =>
    x.linear(graph.weight(`${name}.weight`, [out, x.shape.at(-1) as number]), graph.weight(`${name}.bias`, [out]));
  const norm = (x: Value, name: string, epsilon: number): Value => {
    const width = [x.shape.at(-1) as number];
    return x.layerNorm(epsilon, graph.weight(`${name}.weight`, width), graph.weight(`${name}.bias`, width));
  };

  /** x: [B, N, D] */
  const imageBlock = (x: Value, name: string): Value => {
    const [q, k, v] = linear(norm(x, `${name}.norm1`, IMAGE_EPS), `${name}.attn.qkv`, 3 * vit.width).chunk(3, -1) as [
      Value,
      Value,
      Value,
    ];
    const h = x.add(linear(q.attention(k, v, vit.heads), `${name}.attn.proj`, vit.width));
    const wide = linear(norm(h, `${name}.norm2`, IMAGE_EPS), `${name}.mlp.fc1`, 4 * vit.width).gelu("none");
    return h.add(linear(wide, `${name}.mlp.fc2`, vit.width));
  };

  /** Attention of x over y, then the sum with x and its norm. */
  const attend = (x: Value, y: Value, name: string): Value => {
    const part = (of: Value, which: string): Value => linear(of, `${name}.self.${which}`, bert.width);
    const a = part(x, "query").attention(part(y, "key"), part(y, "value"), bert.heads);
    return norm(x.add(linear(a, `${name}.output.dense`, bert.width)), `${name}.output.LayerNorm`, TEXT_EPS);
  };
  /** x: [B, T, D]  seen: [B, N, D'] */
  const textLayer = (x: Value, seen: Value, name: string): Value => {
    const h = attend(attend(x, x, `${name}.attention`), seen, `${name}.crossattention`);
    const wide = linear(h, `${name}.intermediate.dense`, bert.mlp).gelu("none");
    return norm(h.add(linear(wide, `${name}.output.dense`, bert.width)), `${name}.output.LayerNorm`, TEXT_EPS);
  };

  const eye = "blip.visual_encoder";
  const image = graph.input(imageRewardNames.image, [BATCH, 3, vit.size, vit.size]);
  const count = 1 + (vit.size / vit.patch) ** 2;
  let seen = imageTokens(
    image,
    [
      graph.weight(`${eye}.patch_embed.proj.weight`, [vit.width, 3, vit.patch, vit.patch]),
      graph.weight(`${eye}.patch_embed.proj.bias`, [vit.width]),
    ],
    graph.weight(`${eye}.cls_token`, [1, 1, vit.width]),
    graph.weight(`${eye}.pos_embed`, [1, count, vit.width]),
  );
  for (let i = 0; i < vit.layers; i++) seen = imageBlock(seen, `${eye}.blocks.${i}`);
  seen = norm(seen, `${eye}.norm`, IMAGE_EPS);

  const reader = "blip.text_encoder";
  const ids = graph.input(imageRewardNames.ids, [BATCH, imageRewardNames.tokens], "int64");
  const words = graph.weight(`${reader}.embeddings.word_embeddings.weight`, [bert.vocabulary, bert.width]);
  const places = graph.weight(`${reader}.embeddings.position_embeddings.weight`, [bert.places, bert.width]);
  let x = words.gather(ids).add(places.gather(ids.positions(1)));
  x = norm(x, `${reader}.embeddings.LayerNorm`, TEXT_EPS);
  for (let i = 0; i < bert.layers; i++) x = textLayer(x, seen, `${reader}.encoder.layer.${i}`);
  graph.output(imageRewardNames.state, firstToken(graph, x));
  return graph;
}

/** Places of the linear layers of the head, and how wide they are; between them nothing happens. */
export const REWARD_LAYERS = [
  [0, 1024],
  [2, 128],
  [4, 64],
  [6, 16],
  [7, 1],
] as const;

/** The tensors of the head. */
export const rewardTensors = (width: number): { name: string; shape: readonly number[] }[] =>
  REWARD_LAYERS.flatMap(([place, out], i) => {
    const input = REWARD_LAYERS[i - 1]?.[1] ?? width;
    return [
      { name: `mlp.layers.${place}.weight`, shape: [out, input] },
      { name: `mlp.layers.${place}.bias`, shape: [out] },
    ];
  });

/** True for the tensors of the release that nothing is computed with. */
export const imageRewardIgnores = (name: string): boolean =>
  /^(mlp\.|blip\.(vision|text)_proj\.|blip\.text_encoder\.embeddings\.position_ids$)/.test(name);
