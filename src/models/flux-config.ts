import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { layerCount, parseConfig, positive } from "./config.js";

/** The config of diffusers' `FluxTransformer2DModel`, in camelCase. */
export interface FluxConfig {
  /** Of the output only: the input comes in patches already. */
  patchSize: number;
  /** Channels of a token of the noisy image: 16 latent channels of 2 x 2 pixels. */
  inChannels: number;
  outChannels: number;
  /** Blocks with a stream each for image and text. */
  numLayers: number;
  /** Blocks on both streams in one. */
  numSingleLayers: number;
  attentionHeadDim: number;
  numAttentionHeads: number;
  /** Width of the text encoder's tokens (T5). */
  jointAttentionDim: number;
  /** Width of the pooled text embedding (CLIP). */
  pooledProjectionDim: number;
  /** True if the model was distilled to take the guidance scale as an input (dev), false if it takes none (schnell). */
  guidanceEmbeds: boolean;
  /** Channels of a head that turn with the position along each axis: index, row, column. */
  axesDimsRope: readonly number[];
}

const jsonConfig = z.object({
  patch_size: z._default(positive, 1),
  in_channels: z._default(positive, 64),
  out_channels: z.nullish(positive),
  num_layers: z._default(layerCount, 19),
  num_single_layers: z._default(layerCount, 38),
  attention_head_dim: z._default(positive, 128),
  num_attention_heads: z._default(positive, 24),
  joint_attention_dim: z._default(positive, 4096),
  pooled_projection_dim: z._default(positive, 768),
  guidance_embeds: z._default(z.boolean(), false),
  axes_dims_rope: z._default(z.array(positive.check(z.multipleOf(2))).check(z.length(3)), [16, 56, 56]),
});

/**
 * Reads a `transformer/config.json`; fields left out have diffusers' defaults, fields that do not touch inference are ignored.
 * @param file named in errors
 * @throws FemoError E_CONFIG naming each bad field
 */
export function fluxConfigFromJson(json: unknown, file = "transformer/config.json"): FluxConfig {
  const c = parseConfig(jsonConfig, json, file, "FluxTransformer2DModel");
  const turning = c.axes_dims_rope.reduce((a, b) => a + b, 0);
  if (turning !== c.attention_head_dim) {
    throw new FemoError(
      "E_CONFIG",
      `${file}: axes_dims_rope must add up to attention_head_dim ${c.attention_head_dim}, found ${c.axes_dims_rope.join(" + ")} = ${turning}`,
    );
  }
  return {
    patchSize: c.patch_size,
    inChannels: c.in_channels,
    outChannels: c.out_channels ?? c.in_channels,
    numLayers: c.num_layers,
    numSingleLayers: c.num_single_layers,
    attentionHeadDim: c.attention_head_dim,
    numAttentionHeads: c.num_attention_heads,
    jointAttentionDim: c.joint_attention_dim,
    pooledProjectionDim: c.pooled_projection_dim,
    guidanceEmbeds: c.guidance_embeds,
    axesDimsRope: c.axes_dims_rope,
  };
}

export const fluxSchnell: FluxConfig = fluxConfigFromJson({});
export const fluxDev: FluxConfig = fluxConfigFromJson({ guidance_embeds: true });
