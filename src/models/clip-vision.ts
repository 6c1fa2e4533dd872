import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { Graph } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import { activationNames } from "./activations.js";
import { type ClipLayersConfig, clipLayers } from "./clip-layers.js";
import { type ClipTextConfig, clipTextConfigFromJson } from "./clip-text.js";
import { epsilon, layerCount, parseConfig, positive } from "./config.js";
import { firstToken, imageTokens } from "./vision-tokens.js";

/** The config of transformers' `CLIPVisionModelWithProjection`, in camelCase. */
export interface ClipVisionConfig extends ClipLayersConfig {
  readonly numHiddenLayers: number;
  /** Pixels along a side of what it sees. */
  readonly imageSize: number;
  readonly patchSize: number;
  readonly projectionDim: number;
}

const visionConfig = z.object({
  hidden_size: z._default(positive, 768),
  intermediate_size: z._default(positive, 3072),
  num_hidden_layers: z._default(layerCount, 12),
  num_attention_heads: z._default(positive, 12),
  image_size: z._default(positive.check(z.maximum(4096)), 224),
  patch_size: z._default(positive, 32),
  hidden_act: z._default(z.enum(activationNames), "quick_gelu"),
  layer_norm_eps: z._default(epsilon, 1e-5),
});
const clipConfig = z.object({
  projection_dim: z._default(positive, 512),
  text_config: z._default(z.looseObject({}), {}),
  vision_config: z.prefault(visionConfig, {}),
});

/** Both halves of a CLIP. */
export interface ClipConfig {
  readonly vision: ClipVisionConfig;
  readonly text: ClipTextConfig;
}

/**
 * Reads the `config.json` of transformers' `CLIPModel`; fields left out have transformers' defaults.
 * @param file named in errors
 * @throws FemoError E_CONFIG naming each bad field
 */
export function clipConfigFromJson(json: unknown, file = "config.json"): ClipConfig {
  const {
    projection_dim: projectionDim,
    vision_config: c,
    text_config: text,
  } = parseConfig(clipConfig, json, file, "CLIPModel");
  const check = (right: boolean, message: string): void => {
    if (!right) throw new FemoError("E_CONFIG", `${file}: vision_config: ${message}`);
  };
  const [width, heads] = [c.hidden_size, c.num_attention_heads];
  check(width % heads === 0, `hidden_size ${width} does not split into num_attention_heads ${heads}`);
  check(c.image_size % c.patch_size === 0, `image_size ${c.image_size} does not split into patch_size ${c.patch_size}`);
  return {
    vision: {
      hiddenSize: width,
      intermediateSize: c.intermediate_size,
      numHiddenLayers: c.num_hidden_layers,
      numAttentionHeads: heads,
      imageSize: c.image_size,
      patchSize: c.patch_size,
      projectionDim,
      hiddenAct: c.hidden_act,
      layerNormEps: c.layer_norm_eps,
    },
    text: clipTextConfigFromJson({ ...text, projection_dim: projectionDim }, `${file}: text_config`),
  };
}

/** Names of the graph's input and output. */
export const clipVisionNames = { image: "image", features: "features" } as const;

/**
 * Image encoder of CLIP (Radford et al., arXiv 2103.00020), transformers' `CLIPVisionModelWithProjection`, whose tensor
 * names it has. From "image", [batch, 3, S, S], to "features", [batch, projectionDim], as long as they come out.
 */
export function clipVisionEncoder(config: ClipVisionConfig): Graph {
  const { hiddenSize: width, imageSize: side, patchSize: patch } = config;
  const graph = new Graph();
  const { norm, layer } = clipLayers(graph, config, { causal: false });
  const part = (name: string, shape: readonly number[]) => graph.weight(`vision_model.embeddings.${name}`, shape);

  const image = graph.input(clipVisionNames.image, [BATCH, 3, side, side]);
  const tokens = 1 + (side / patch) ** 2;
  const embedded = imageTokens(
    image,
    [part("patch_embedding.weight", [width, 3, patch, patch]), null],
    part("class_embedding", [width]).reshape([1, 1, width]),
    part("position_embedding.weight", [tokens, width]).reshape([1, tokens, width]),
  );
  let x = norm(embedded, "vision_model.pre_layrnorm"); // as transformers spells it
  for (let i = 0; i < config.numHiddenLayers; i++) x = layer(x, `vision_model.encoder.layers.${i}`);
  const pooled = norm(firstToken(graph, x), "vision_model.post_layernorm");
  const projection = graph.weight("visual_projection.weight", [config.projectionDim, width]);
  graph.output(clipVisionNames.features, pooled.linear(projection, null));
  return graph;
}

/** True for the tensors of a whole CLIP that its image encoder does not use. */
export const clipVisionIgnores = (name: string): boolean =>
  /^(text_model\.|text_projection\.weight$|logit_scale$|vision_model\.embeddings\.position_ids$)/.test(name);
