import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { type ConvOptions, type Dim, Graph, productDim, type Value } from "../graph/index.js";
import { BATCH } from "../tracing/index.js";
import type { Checkpoint } from "../weights/index.js";
import { parseConfig, positive } from "./config.js";

/** The config of diffusers' `AutoencoderKL`, in camelCase. */
export interface AutoencoderKLConfig {
  latentChannels: number;
  /** Of the image that is encoded, and of the one that is decoded. */
  inChannels: number;
  outChannels: number;
  /** Channels of each resolution, the image's first; every further one halves height and width. */
  blockOutChannels: readonly number[];
  /** Residual blocks of the encoder at each resolution; the decoder has one more. */
  layersPerBlock: number;
  normNumGroups: number;
  actFn: "silu" | "mish" | "gelu" | "relu";
  /** Height and width of the images it was trained on: the size of a tile. */
  sampleSize: number;
  useQuantConv: boolean;
  usePostQuantConv: boolean;
  midBlockAddAttention: boolean;
  /** What diffusion calls a latent is (the autoencoder's - shift) / scale; one number, or one for each channel. */
  latentScale: readonly number[];
  latentShift: readonly number[];
}

const perChannel = z.nullish(z.array(z.number()));
const jsonConfig = z.object({
  latent_channels: z._default(positive, 4),
  in_channels: z._default(positive, 3),
  out_channels: z._default(positive, 3),
  down_block_types: z._default(z.array(z.literal("DownEncoderBlock2D")), ["DownEncoderBlock2D"]),
  up_block_types: z._default(z.array(z.literal("UpDecoderBlock2D")), ["UpDecoderBlock2D"]),
  block_out_channels: z._default(z.array(positive).check(z.minLength(1), z.maxLength(12)), [64]),
  layers_per_block: z._default(positive.check(z.maximum(256)), 1),
  norm_num_groups: z._default(positive, 32),
  act_fn: z._default(z.enum(["silu", "swish", "mish", "gelu", "relu"]), "silu"),
  sample_size: z._default(z.union([positive, z.tuple([positive, positive])]), 32),
  use_quant_conv: z._default(z.boolean(), true),
  use_post_quant_conv: z._default(z.boolean(), true),
  mid_block_add_attention: z._default(z.boolean(), true),
  scaling_factor: z._default(z.number().check(z.positive()), 0.18215),
  shift_factor: z.nullish(z.number()),
  latents_mean: perChannel,
  latents_std: perChannel,
});

/**
 * Reads a `vae/config.json`; fields left out have diffusers' defaults, fields that do not touch inference are ignored.
 * @param file named in errors
 * @throws FemoError E_CONFIG naming each bad field
 */
export function autoencoderKLConfigFromJson(json: unknown, file = "vae/config.json"): AutoencoderKLConfig {
  const c = parseConfig(jsonConfig, json, file, "AutoencoderKL");
  const check = (right: boolean, message: string): void => {
    if (!right) throw new FemoError("E_CONFIG", `${file}: ${message}`);
  };
  const [blocks, types] = [c.block_out_channels.length, c.up_block_types.length];
  check(types === blocks, `up_block_types: expected one for each of ${blocks} block_out_channels, found ${types}`);
  const odd = c.block_out_channels.find((channels) => channels % c.norm_num_groups !== 0);
  check(odd === undefined, `block_out_channels: ${odd} does not split into norm_num_groups ${c.norm_num_groups}`);
  for (const [name, list] of Object.entries({ latents_mean: c.latents_mean, latents_std: c.latents_std })) {
    const right = !list || list.length === c.latent_channels;
    check(right, `${name}: expected a number for each of ${c.latent_channels} latent_channels, found ${list?.length}`);
  }
  check(!c.latents_mean === !c.latents_std, "latents_mean and latents_std: expected both or neither, found one");
  return {
    latentChannels: c.latent_channels,
    inChannels: c.in_channels,
    outChannels: c.out_channels,
    blockOutChannels: c.block_out_channels,
    layersPerBlock: c.layers_per_block,
    normNumGroups: c.norm_num_groups,
    actFn: c.act_fn === "swish" ? "silu" : c.act_fn,
    sampleSize: typeof c.sample_size === "number" ? c.sample_size : c.sample_size[0],
    useQuantConv: c.use_quant_conv,
    usePostQuantConv: c.use_post_quant_conv,
    midBlockAddAttention: c.mid_block_add_attention,
    latentScale: (c.latents_std ?? [1]).map((deviation) => deviation / c.scaling_factor),
    latentShift: c.latents_mean ?? [c.shift_factor ?? 0],
  };
}

/** Pixels along one side of a latent pixel: 8 for all published models. */
export const latentStride = ({ blockOutChannels }: AutoencoderKLConfig): number => 2 ** (blockOutChannels.length - 1);

/** Names of the decoder graph's input, output and free axes. */
export const decoderNames = { latent: "latent", image: "image", height: "height", width: "width" } as const;

const NORM_EPS = 1e-6; // of all norms, fixed in diffusers

/** What encoder and decoder are made of, over the weights of a graph. */
export function autoencoderLayers(graph: Graph, config: AutoencoderKLConfig) {
  const { normNumGroups } = config;
  const conv = (x: Value, name: string, outputs: number, { kernel = 3, ...options }: KernelOptions = {}): Value =>
    x.conv(
      graph.weight(`${name}.weight`, [outputs, x.shape[1] as number, kernel, kernel]),
      graph.weight(`${name}.bias`, [outputs]),
      { padding: (kernel - 1) / 2, ...options },
    );
  const norm = (x: Value, name: string): Value => {
    const channels = [x.shape[1] as number];
    return x.groupNorm(
      normNumGroups,
      NORM_EPS,
      graph.weight(`${name}.weight`, channels),
      graph.weight(`${name}.bias`, channels),
    );
  };
  const activation = (x: Value): Value => (config.actFn === "gelu" ? x.gelu("none") : x[config.actFn]());

  const resnet = (x: Value, name: string, outputs: number): Value => {
    const h = conv(activation(norm(x, `${name}.norm1`)), `${name}.conv1`, outputs);
    const y = conv(activation(norm(h, `${name}.norm2`)), `${name}.conv2`, outputs);
    return (x.shape[1] === outputs ? x : conv(x, `${name}.conv_shortcut`, outputs, { kernel: 1 })).add(y);
  };

  /** Every pixel attends to every other, in one head as wide as the channels.  x: [B, C, H, W] */
  const attention = (x: Value, name: string): Value => {
    const [batch, channels, ...area] = x.shape as [Dim, number, Dim, Dim];
    // Linear over the channels of an image is a convolution of one pixel, in all sizes.
    const linear = (y: Value, part: string): Value =>
      y.conv(
        graph.weight(`${name}.${part}.weight`, [channels, channels]).reshape([channels, channels, 1, 1]),
        graph.weight(`${name}.${part}.bias`, [channels]),
      );
    const h = norm(x, `${name}.group_norm`);
    const [q, k, v] = ["to_q", "to_k", "to_v"].map((part) =>
      linear(h, part)
        .reshape([batch, channels, productDim(area)])
        .transpose([0, 2, 1]),
    ) as [Value, Value, Value]; // [B, H W, C]
    return x.add(linear(q.attention(k, v, 1).transpose([0, 2, 1]).reshapeAs(x), "to_out.0"));
  };

  const midBlock = (x: Value, name: string, channels: number): Value => {
    const h = resnet(x, `${name}.resnets.0`, channels);
    const a = config.midBlockAddAttention ? attention(h, `${name}.attentions.0`) : h;
    return resnet(a, `${name}.resnets.1`, channels);
  };

  return { conv, norm, resnet, midBlock };
}

interface KernelOptions extends ConvOptions {
  /** Side of the kernel; without a padding the convolution keeps height and width. Default: 3. */
  readonly kernel?: number;
}

/**
 * Decoder of the autoencoder of latent diffusion (Rombach et al., arXiv 2112.10752), tensor names as in diffusers.
 * From "latent" as diffusion leaves it, [batch, latentChannels, height, width] (scale and shift are undone inside), to
 * "image" in [-1, 1], [batch, outChannels, s height, s width] with s = `latentStride`. One graph serves all sizes.
 * It has no conditioning and nothing to forecast, hence no trace.
 */
export function autoencoderKLDecoder(config: AutoencoderKLConfig): Graph {
  const { latentChannels, outChannels, layersPerBlock } = config;
  const graph = new Graph();
  const { conv, norm, resnet, midBlock } = autoencoderLayers(graph, config);

  const upBlock = (x: Value, name: string, channels: number, last: boolean): Value => {
    let h = x;
    for (let i = 0; i <= layersPerBlock; i++) h = resnet(h, `${name}.resnets.${i}`, channels);
    return last ? h : conv(h.upsampleNearest(2), `${name}.upsamplers.0.conv`, channels);
  };

  const { latent, image, height, width } = decoderNames;
  const perChannel = (values: readonly number[]): Value =>
    graph.constant(Float32Array.from(values), [values.length, 1, 1]);
  const scaled = graph.input(latent, [BATCH, latentChannels, height, width]);
  const z = scaled.mul(perChannel(config.latentScale)).add(perChannel(config.latentShift));

  const channels = config.blockOutChannels.toReversed();
  const [widest] = channels as [number];
  const input = config.usePostQuantConv ? conv(z, "post_quant_conv", latentChannels, { kernel: 1 }) : z;
  let h = midBlock(conv(input, "decoder.conv_in", widest), "decoder.mid_block", widest);
  for (const [i, outputs] of channels.entries()) {
    h = upBlock(h, `decoder.up_blocks.${i}`, outputs, i === channels.length - 1);
  }
  const out = norm(h, "decoder.conv_norm_out").silu(); // SiLU whatever actFn says, as in diffusers
  graph.output(image, conv(out, "decoder.conv_out", outChannels));
  return graph;
}

/** True for the tensors of a whole autoencoder that its decoder does not use, and for those that its encoder does not. */
export const isEncoderTensor = (name: string): boolean => name.startsWith("encoder.") || name.startsWith("quant_conv.");
export const isDecoderTensor = (name: string): boolean =>
  name.startsWith("decoder.") || name.startsWith("post_quant_conv.");

const OLD_ATTENTION = /^(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$/;
const CURRENT_PART: Readonly<Record<string, string>> = {
  query: "to_q",
  key: "to_k",
  value: "to_v",
  proj_attn: "to_out.0",
};

/**
 * A checkpoint under today's names: early releases of diffusers called the attention's parts query,
 * key, value and proj_attn, and some files keep them as convolutions of one pixel, whose bytes are those of a matrix.
 * @throws FemoError E_WEIGHT if it has a tensor by both names
 */
export function withCurrentNames(checkpoint: Checkpoint): Checkpoint {
  const renamed = checkpoint.tensors().map((tensor) => {
    const [, attention, part = "", kind] = OLD_ATTENTION.exec(tensor.name) ?? [];
    if (attention === undefined) return tensor;
    const { shape } = tensor;
    const matrix = shape.length === 4 && shape[2] === 1 && shape[3] === 1 ? shape.slice(0, 2) : shape;
    return { ...tensor, name: `${attention}.${CURRENT_PART[part]}.${kind}`, shape: matrix };
  });
  return checkpoint.withTensors(renamed);
}
