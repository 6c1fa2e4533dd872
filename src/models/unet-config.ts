import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { epsilon, parseConfig, positive } from "./config.js";

/** The config of diffusers' `UNet2DConditionModel`, in camelCase, its lists by level written out by block and layer. */
export interface UNetConfig {
  /** Of the network's input: the latent's, and for inpainting also a mask and the latent of the masked image. */
  inChannels: number;
  outChannels: number;
  /** Height and width of the latents that it was trained on, if the config says. */
  sampleSize: readonly [height: number, width: number] | undefined;
  /** From the image's resolution to the coarsest. */
  downBlocks: readonly UNetBlock[];
  /** Undefined if there is none. */
  midBlock: UNetMidBlock | undefined;
  /** From the coarsest resolution to the image's. */
  upBlocks: readonly UNetBlock[];
  normNumGroups: number;
  /** Of the norms of residual blocks and of the last one. */
  normEps: number;
  /** Width of the text encoder's tokens. */
  crossAttentionDim: number;
  /** Tokens enter and leave transformers through linear layers, not through convolutions of one pixel. */
  useLinearProjection: boolean;
  /** Sinusoids of the timestep: cosines first, and frequencies 10⁻⁴ to the power i / (half of them - shift). */
  flipSinToCos: boolean;
  freqShift: number;
  /** Width of the embedding of the guidance scale that the model was distilled to take (LCM), if it was. */
  timeCondProjDim: number | undefined;
  /** SDXL's embedding of pooled text and of sizes ("text_time"). */
  addition: UNetAddition | undefined;
}

/** The layers of a resolution, each a residual block and, if it has one, a transformer. */
export interface UNetBlock {
  channels: number;
  layers: readonly (UNetTransformer | undefined)[];
}

export interface UNetTransformer {
  heads: number;
  /** How many transformer blocks it has. */
  depth: number;
}

export interface UNetMidBlock {
  /** With one there is a further residual block behind it. */
  transformer: UNetTransformer | undefined;
}

export interface UNetAddition {
  /** Channels of the sinusoids of each number. */
  timeEmbedDim: number;
  /** How many numbers: SDXL's sizes and crop are 6, those of its refiner 5. */
  timeIds: number;
  /** Width of the pooled text. */
  pooledProjectionDim: number;
}

const show = (value: unknown): string => JSON.stringify(value) ?? "nothing";

/** One of some values, the first if it is left out. */
const oneOf = <const T extends readonly (string | number | boolean | null)[]>(...allowed: T) =>
  z._default(
    z.literal([...allowed] as T[number][], {
      error: ({ input }) => `expected ${allowed.map(show).join(" or ")}, found ${show(input)}`,
    }),
    allowed[0] as never,
  );

const BLOCKS = 12;
const LAYERS = 256;
const layersPerBlock = positive.check(z.maximum(LAYERS));
const depth = z.int().check(z.nonnegative(), z.maximum(1024));
const perBlock = <T extends z.ZodMiniType>(of: T) => z.array(of).check(z.minLength(1), z.maxLength(BLOCKS));
const depths = perBlock(z.union([depth, z.array(depth).check(z.minLength(1), z.maxLength(LAYERS + 1))]));

const PLAIN = { down: "DownBlock2D", up: "UpBlock2D" } as const;
const CROSS = { down: "CrossAttnDownBlock2D", up: "CrossAttnUpBlock2D" } as const;
const typesOf = (way: "down" | "up", usual: readonly boolean[]) =>
  z._default(perBlock(oneOf(PLAIN[way], CROSS[way])), usual.map((cross) => (cross ? CROSS : PLAIN)[way]) as never);

const jsonConfig = z.object({
  sample_size: z.nullish(z.union([positive, z.tuple([positive, positive])])),
  in_channels: z._default(positive, 4),
  out_channels: z._default(positive, 4),
  down_block_types: typesOf("down", [true, true, true, false]),
  mid_block_type: oneOf("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", null),
  up_block_types: typesOf("up", [false, true, true, true]),
  block_out_channels: z._default(perBlock(positive), [320, 640, 1280, 1280]),
  layers_per_block: z._default(z.union([layersPerBlock, perBlock(layersPerBlock)]), 2),
  norm_num_groups: z._default(positive, 32),
  norm_eps: z._default(epsilon, 1e-5),
  cross_attention_dim: z._default(positive, 1280),
  transformer_layers_per_block: z._default(z.union([depth, depths]), 1),
  reverse_transformer_layers_per_block: z.nullish(depths),
  attention_head_dim: z._default(z.union([positive, perBlock(positive)]), 8),
  use_linear_projection: z._default(z.boolean(), false),
  flip_sin_to_cos: z._default(z.boolean(), true),
  freq_shift: z._default(z.number().check(z.minimum(0), z.maximum(1)), 0),
  time_cond_proj_dim: z.nullish(positive),
  addition_embed_type: oneOf(null, "text_time"),
  addition_time_embed_dim: z.nullish(positive.check(z.multipleOf(2))),
  projection_class_embeddings_input_dim: z.nullish(positive),
  // What diffusers knows besides, and no published model of this family has.
  act_fn: oneOf("silu", "swish"),
  center_input_sample: oneOf(false),
  only_cross_attention: oneOf(false),
  mid_block_only_cross_attention: oneOf(null, false),
  downsample_padding: oneOf(1),
  mid_block_scale_factor: oneOf(1),
  encoder_hid_dim: oneOf(null),
  encoder_hid_dim_type: oneOf(null),
  num_attention_heads: oneOf(null),
  dual_cross_attention: oneOf(false),
  class_embed_type: oneOf(null),
  num_class_embeds: oneOf(null),
  class_embeddings_concat: oneOf(false),
  resnet_time_scale_shift: oneOf("default"),
  resnet_skip_time_act: oneOf(false),
  resnet_out_scale_factor: oneOf(1),
  time_embedding_type: oneOf("positional"),
  time_embedding_dim: oneOf(null),
  time_embedding_act_fn: oneOf(null),
  timestep_post_act: oneOf(null),
  conv_in_kernel: oneOf(3),
  conv_out_kernel: oneOf(3),
  attention_type: oneOf("default"),
  cross_attention_norm: oneOf(null),
});
type Json = z.infer<typeof jsonConfig>;

/**
 * Reads a `unet/config.json`; fields left out have diffusers' defaults, fields that do not touch inference are ignored.
 * How many numbers beside the pooled text a model takes no config says: it is read as 6, or as 5 where that leaves pooled
 * text as wide as OpenCLIP's bigG makes it, 1280; whoever knows better says so in `addition`.
 * @param file named in errors
 * @throws FemoError E_CONFIG naming each bad field
 */
export function unetConfigFromJson(json: unknown, file = "unet/config.json"): UNetConfig {
  const c = parseConfig(jsonConfig, json, file, "UNet2DConditionModel");
  const fail = (message: string): never => {
    throw new FemoError("E_CONFIG", `${file}: ${message}`);
  };
  const channels = c.block_out_channels;
  const count = channels.length;
  const spread = <T>(key: keyof Json, value: T | readonly T[]): readonly T[] => {
    const list = Array.isArray(value) ? (value as readonly T[]) : new Array<T>(count).fill(value as T);
    if (list.length === count) return list;
    return fail(`${key}: expected one for each of ${count} block_out_channels, found ${list.length}`);
  };
  const layers = spread("layers_per_block", c.layers_per_block);
  const heads = spread("attention_head_dim", c.attention_head_dim);
  const down = spread<number | number[]>("transformer_layers_per_block", c.transformer_layers_per_block);
  const reversed = c.reverse_transformer_layers_per_block;
  if (!reversed && down.some(Array.isArray)) {
    fail("reverse_transformer_layers_per_block: expected depths of the up blocks, as the down blocks' are by layer");
  }
  const up = spread("reverse_transformer_layers_per_block", reversed ?? down.toReversed());
  const downTypes = spread<string>("down_block_types", c.down_block_types);
  const upTypes = spread<string>("up_block_types", c.up_block_types);
  for (const width of channels) {
    if (width % c.norm_num_groups !== 0) {
      fail(`block_out_channels: ${width} does not split into norm_num_groups ${c.norm_num_groups}`);
    }
  }

  const transformer = (level: number, depth: number): UNetTransformer => {
    const [width, parts] = [channels[level] as number, heads[level] as number];
    if (width % parts === 0) return { heads: parts, depth };
    return fail(`attention_head_dim: block_out_channels ${width} does not split into ${parts} heads, which it counts`);
  };
  const block = (
    key: keyof Json,
    level: number,
    { cross, number, depths }: { cross: boolean; number: number; depths: number | readonly number[] },
  ): UNetBlock => {
    const byLayer = typeof depths === "number" ? new Array<number>(number).fill(depths) : depths;
    if (cross && byLayer.length !== number) {
      fail(`${key}: expected a depth for each of ${number} layers, found ${show(depths)}`);
    }
    return {
      channels: channels[level] as number,
      layers: Array.from({ length: number }, (_, i) => (cross ? transformer(level, byLayer[i] as number) : undefined)),
    };
  };
  const last = count - 1;
  const deepest = [down[last] as number | number[]].flat()[0] as number;
  return {
    inChannels: c.in_channels,
    outChannels: c.out_channels,
    sampleSize: typeof c.sample_size === "number" ? [c.sample_size, c.sample_size] : (c.sample_size ?? undefined),
    downBlocks: channels.map((_, level) =>
      block("transformer_layers_per_block", level, {
        cross: downTypes[level] === CROSS.down,
        number: layers[level] as number,
        depths: down[level] as number | number[],
      }),
    ),
    midBlock:
      c.mid_block_type === null
        ? undefined
        : { transformer: c.mid_block_type === "UNetMidBlock2D" ? undefined : transformer(last, deepest) },
    upBlocks: channels.map((_, i) =>
      block("reverse_transformer_layers_per_block", last - i, {
        cross: upTypes[i] === CROSS.up,
        number: (layers[last - i] as number) + 1,
        depths: up[i] as number | number[],
      }),
    ),
    normNumGroups: c.norm_num_groups,
    normEps: c.norm_eps,
    crossAttentionDim: c.cross_attention_dim,
    useLinearProjection: c.use_linear_projection,
    flipSinToCos: c.flip_sin_to_cos,
    freqShift: c.freq_shift,
    timeCondProjDim: c.time_cond_proj_dim ?? undefined,
    addition: additionOf(c, fail),
  };
}

function additionOf(c: Json, fail: (message: string) => never): UNetAddition | undefined {
  if (c.addition_embed_type === null) return undefined;
  const { addition_time_embed_dim: timeEmbedDim, projection_class_embeddings_input_dim: width } = c;
  if (!timeEmbedDim || !width) {
    return fail(
      'addition_time_embed_dim, projection_class_embeddings_input_dim: expected with addition_embed_type "text_time", found none',
    );
  }
  const pooledWith = (ids: number): number => width - ids * timeEmbedDim;
  const timeIds = pooledWith(5) === BIG_G ? 5 : 6;
  if (pooledWith(timeIds) > 0) return { timeEmbedDim, timeIds, pooledProjectionDim: pooledWith(timeIds) };
  return fail(
    `projection_class_embeddings_input_dim: expected more than ${timeIds} addition_time_embed_dim of ${timeEmbedDim}, found ${width}`,
  );
}

/** Width of what OpenCLIP's bigG makes of pooled text. */
const BIG_G = 1280;

/** SDXL base: 2,567 M parameters. */
export const sdxlBase: UNetConfig = unetConfigFromJson({
  sample_size: 128,
  block_out_channels: [320, 640, 1280],
  down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
  up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
  transformer_layers_per_block: [1, 2, 10],
  attention_head_dim: [5, 10, 20],
  cross_attention_dim: 2048,
  use_linear_projection: true,
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  projection_class_embeddings_input_dim: 2816,
});
