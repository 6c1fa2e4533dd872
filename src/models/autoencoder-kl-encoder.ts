import { Graph, productDim } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import { type AutoencoderKLConfig, autoencoderLayers, latentStride } from "./autoencoder-kl.js";

/** Names of the encoder graph's input, outputs and free axes, which are the latent's. */
export const encoderNames = {
  image: "image",
  mean: "mean",
  logvar: "logvar",
  height: "height",
  width: "width",
} as const;

/**
 * Encoder of the autoencoder of latent diffusion (Rombach et al., arXiv 2112.10752), tensor names as in diffusers. From
 * "image" in [-1, 1], [batch, inChannels, s height, s width] with s = `latentStride`, to the normal distribution that it
 * takes the latent to have, "mean" and "logvar", both [batch, latentChannels, height, width]. That is the autoencoder's
 * own latent: diffusers clamps logvar to -30 .. 20 and samples, and what diffusion calls a latent is
 * (sample - `latentShift`) / `latentScale`. One graph serves all sizes.
 */
export function autoencoderKLEncoder(config: AutoencoderKLConfig): Graph {
  const { blockOutChannels: channels, inChannels, latentChannels, layersPerBlock } = config;
  const graph = new Graph();
  const { conv, norm, resnet, midBlock } = autoencoderLayers(graph, config);

  const { image, mean, logvar, height, width } = encoderNames;
  const sides = [height, width].map((side) => productDim([latentStride(config), side]));
  let h = conv(graph.input(image, [BATCH, inChannels, ...sides]), "encoder.conv_in", channels[0] as number);
  for (const [i, outputs] of channels.entries()) {
    const name = `encoder.down_blocks.${i}`;
    for (let k = 0; k < layersPerBlock; k++) h = resnet(h, `${name}.resnets.${k}`, outputs);
    // Zeros at the right and at the bottom alone.
    const halving = { padding: [0, 1], stride: 2 } as const;
    if (i < channels.length - 1) h = conv(h, `${name}.downsamplers.0.conv`, outputs, halving);
  }
  const deepest = midBlock(h, "encoder.mid_block", channels.at(-1) as number);
  const out = norm(deepest, "encoder.conv_norm_out").silu(); // SiLU whatever actFn says, as in diffusers
  const moments = conv(out, "encoder.conv_out", 2 * latentChannels);
  const given = config.useQuantConv ? conv(moments, "quant_conv", 2 * latentChannels, { kernel: 1 }) : moments;
  for (const [i, half] of given.chunk(2, 1).entries()) graph.output([mean, logvar][i] as string, half);
  return graph;
}
