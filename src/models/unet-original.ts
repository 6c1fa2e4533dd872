import { FemoError } from "../errors.js";
import { BLOCK_TYPES, type BlockType } from "../weights/gguf-blocks.js";
import type { Checkpoint, ExpectedTensor } from "../weights/index.js";
import { Renaming } from "../weights/renamed.js";
import { separateScales } from "../weights/scaled-float8.js";
import { COMPUTABLE } from "../weights/verify.js";
import { countOf, hasPart, type OriginalPart, partOf, shapeOf } from "./original-parts.js";
import { originalUnetModule, type UnetLayout } from "./unet-names.js";

/** A U-Net of a single file. */
export interface OriginalUnet {
  /** As diffusers' `unet/config.json`. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Tensors by diffusers' names, each a part of the original file or computed from one. */
  readonly checkpoint: Checkpoint;
}

/** What no shape tells; the defaults are those of all published models. */
export interface OriginalUnetOptions {
  /**
   * Attention heads of all levels, or of each, which configs call `attention_head_dim`. Default: 8 where projections are
   * convolutions, as in Stable Diffusion 1, or else one for every 64 channels.
   */
  attentionHeadDim?: number | readonly number[];
  /** Groups of every norm. Default: 32 */
  normNumGroups?: number;
  /** Channels of the sinusoids of sizes and crops, in models that take them. Default: 256 */
  additionTimeEmbedDim?: number;
}

const PART: OriginalPart = {
  what: "a U-Net of Stable Diffusion",
  marker: "output_blocks.0.0.in_layers.0.weight",
  prefixes: ["model.diffusion_model.", "diffusion_model."],
};
/** Relatives that have blocks of the same names, by the start or a part of names that only they have. */
const RELATIVES: readonly (readonly [name: RegExp, model: string])[] = [
  [/\.time_stack\.|\.time_mixer\./, "Stable Video Diffusion"],
  [/^label_emb\.weight$/, "an upscaler, which takes an image and its noise level"],
  [/\.encoder_kv\./, "a U-Net whose attention joins text and image in one"],
];
/** Models that take more than a latent, or a latent, a mask and a masked latent, by the channels of their input. */
const OTHER_INPUTS: ReadonlyMap<number, string> = new Map([
  [5, "a model that takes a depth map"],
  [7, "an upscaler, which takes an image"],
  [8, "an instruct variant (InstructPix2Pix), which takes an image to edit"],
]);
/** What files of a U-Net alone have beside it: how it was trained. */
const MARKS = /^(v_pred|ztsnr)$/;
const HEAD = 64;
const MLP_RATIO = 4;
/** Far above any model: a damaged name must not ask for layers without end. */
const MAX_DEPTH = 64;
const MAX_LEVELS = 16;

/** True if a file has a U-Net under the names of the release. */
export const isOriginalUnet = (checkpoint: Checkpoint): boolean => hasPart(checkpoint, PART);

/** The U-Net's tensors by the release's names, without prefix. @throws FemoError E_WEIGHT if there is none */
export const originalUnetTensors = (checkpoint: Checkpoint): Checkpoint => partOf(checkpoint, PART);

/** What the shapes and names of a file tell of its U-Net. */
export interface UnetShape {
  readonly inChannels: number;
  readonly outChannels: number;
  /** Of each level, the image's first. */
  readonly channels: readonly number[];
  /** Transformer blocks of each layer of a level on the way down, 0 where there is no attention. */
  readonly down: readonly (readonly number[])[];
  /** The same on the way up, the deepest level first. */
  readonly up: readonly (readonly number[])[];
  /** Transformer blocks in the middle; undefined if it is one residual block alone. */
  readonly mid: number | undefined;
  /** Channels of the text. */
  readonly context: number;
  /** Whether attention's projections are linear layers rather than convolutions. */
  readonly linear: boolean;
  /** Width of what is told beside the timestep, if anything. */
  readonly addition: number | undefined;
  /** Width of the embedding of the guidance scale, in models distilled to need no second pass. */
  readonly timeCond: number | undefined;
}

/**
 * The U-Net of a single file (`sd_xl_base_1.0.safetensors`, a fine-tune, a GGUF file, the U-Net alone) as that of diffusers'
 * `UNet2DConditionModel`, with the config that the shapes tell. Every tensor is a part of the file, in the file's precision;
 * computed are only weights in 8-bit floating point with a scale beside them, and what is in GGUF's blocks.
 * @throws FemoError E_WEIGHT if it is another model, or tensors are missing, surplus or of other shapes, or as
 *   `separateScales`; E_CONFIG if its sizes do not fit groups and heads
 */
export async function originalUnet(checkpoint: Checkpoint, options: OriginalUnetOptions = {}): Promise<OriginalUnet> {
  const scaled = await separateScales(originalUnetTensors(checkpoint));
  const own = scaled.checkpoint;
  const shape = unetShapeOf(own);
  const config = configOf(own, shape, options);
  const layout = layoutOf(shape);
  const tensors = unetTensors(shape).map(({ name, ...tensor }) => {
    const dot = name.lastIndexOf(".");
    const module = originalUnetModule(name.slice(0, dot), layout) as string; // all of them have one
    return { name, original: module + name.slice(dot), ...tensor };
  });
  const expected = tensors.map(({ original, shape }): ExpectedTensor => ({ name: original, shape }));
  const dtypes = [...COMPUTABLE, ...(Object.keys(BLOCK_TYPES) as BlockType[])];
  own.verify(expected, { dtypes, ignore: (name) => MARKS.test(name) });
  const renaming = new Renaming(scaled);
  for (const { name, original } of tensors) renaming.take(name, original);
  return { config, checkpoint: renaming.checkpoint() };
}

const layoutOf = ({ down, up }: UnetShape): UnetLayout => ({
  layersPerBlock: (down[0] as readonly number[]).length,
  hasUpAttention: (level, layer) => (up[level]?.[layer] ?? 0) > 0,
});

/**
 * What names and shapes of a U-Net tell of it.
 * @param own by the release's names, without prefix
 * @throws FemoError E_WEIGHT if it is another model, or its levels are none that diffusers' model can have
 */
export function unetShapeOf(own: Checkpoint): UnetShape {
  const names = own.names();
  const relative = RELATIVES.find(([pattern]) => names.some((name) => pattern.test(name)));
  if (relative) refuse(own, relative[1]);
  const has = (name: string): boolean => own.get(name) !== undefined;
  const shape = (name: string, axes: number) => shapeOf(own, name, axes, PART.what);
  const depth = (block: string): number => {
    if (!has(`${block}.1.norm.weight`)) return 0;
    const blocks = countOf(own, `${block}.1.transformer_blocks`);
    if (blocks >= 1 && blocks <= MAX_DEPTH) return blocks;
    return refuse(own, `${block}.1, attention of ${blocks} transformer blocks, not of 1 to ${MAX_DEPTH}`);
  };

  const [, inChannels] = shape("input_blocks.0.0.weight", 4) as [number, number];
  const [outChannels] = shape("out.2.weight", 4) as [number];
  const channels: number[] = [];
  const down: number[][] = [[]];
  for (let n = 1; has(`input_blocks.${n}.0.op.weight`) || has(`input_blocks.${n}.0.in_layers.2.weight`); n++) {
    const level = down.at(-1) as number[];
    if (has(`input_blocks.${n}.0.op.weight`)) {
      down.push([]);
    } else {
      const [width] = shape(`input_blocks.${n}.0.in_layers.2.weight`, 4) as [number];
      level.push(depth(`input_blocks.${n}`));
      channels[down.length - 1] = width;
    }
  }
  const layers = down[0]?.length ?? 0;
  const uneven = down.some((level) => level.length !== layers);
  if (layers === 0 || uneven || down.length > MAX_LEVELS) {
    const found = down.map(({ length }) => length).join(", ");
    refuse(own, `levels of ${found} residual blocks on the way down, which are not one number for up to ${MAX_LEVELS}`);
  }
  const up = down.map((_, i) =>
    Array.from({ length: layers + 1 }, (_, r) => depth(`output_blocks.${(layers + 1) * i + r}`)),
  );
  for (const level of [...down, ...up]) {
    if (level.some((depth) => depth > 0) && level.includes(0)) {
      refuse(own, "a level with attention in some of its layers and none in others");
    }
  }
  const mid = depth("middle_block") || undefined;
  const attention = names.find((name) => name.endsWith(".attn2.to_k.weight"));
  if (attention === undefined) refuse(own, "one without attention to text");
  const [, context] = shape(attention, 2) as [number, number];
  const projection = own.get(attention.replace(/transformer_blocks\..*$/, "proj_in.weight"))?.shape ?? [];
  const [, addition] = has("label_emb.0.0.weight") ? shape("label_emb.0.0.weight", 2) : [];
  const [, timeCond] = has("time_embed.cond_proj.weight") ? shape("time_embed.cond_proj.weight", 2) : [];
  if (inChannels !== outChannels && inChannels !== 2 * outChannels + 1) {
    refuse(own, OTHER_INPUTS.get(inChannels) ?? `a model that takes ${inChannels} channels and gives ${outChannels}`);
  }
  return {
    ...{ inChannels, outChannels, channels, down, up, mid, context, addition, timeCond },
    linear: projection.length === 2,
  };
}

function refuse(checkpoint: Checkpoint, found: string): never {
  throw new FemoError(
    "E_WEIGHT",
    `${checkpoint.name}: expected a Stable Diffusion that makes images of text, or fills masks; found ${found}, which is ` +
      "not supported. Take another file.",
  );
}

const isUniform = ([first, ...rest]: readonly number[]): boolean => rest.every((other) => other === first);
const hasAttention = ([depth = 0]: readonly number[]): boolean => depth > 0;

/** As diffusers' `unet/config.json`. */
function configOf(checkpoint: Checkpoint, shape: UnetShape, options: OriginalUnetOptions): OriginalUnet["config"] {
  const { channels, down, up, mid, addition, timeCond } = shape;
  const { normNumGroups = 32, additionTimeEmbedDim = 256 } = options;
  const heads = options.attentionHeadDim ?? (shape.linear ? channels.map((width) => width / HEAD) : 8);
  checkDivision(checkpoint, "normNumGroups", "groups of a norm", channels, normNumGroups);
  checkDivision(checkpoint, "attentionHeadDim", "attention heads", channels, heads);
  return {
    _class_name: "UNet2DConditionModel",
    ...{ in_channels: shape.inChannels, out_channels: shape.outChannels, center_input_sample: false },
    ...{ flip_sin_to_cos: true, freq_shift: 0, act_fn: "silu", norm_num_groups: normNumGroups, norm_eps: 1e-5 },
    ...{ downsample_padding: 1, mid_block_scale_factor: 1, layers_per_block: down[0]?.length },
    block_out_channels: channels,
    down_block_types: down.map((level) => (hasAttention(level) ? "CrossAttnDownBlock2D" : "DownBlock2D")),
    mid_block_type: mid === undefined ? "UNetMidBlock2D" : "UNetMidBlock2DCrossAttn",
    up_block_types: up.map((level) => (hasAttention(level) ? "CrossAttnUpBlock2D" : "UpBlock2D")),
    ...depthsOf(checkpoint, shape),
    cross_attention_dim: shape.context,
    attention_head_dim: heads,
    use_linear_projection: shape.linear,
    ...(addition !== undefined && {
      addition_embed_type: "text_time",
      addition_time_embed_dim: additionTimeEmbedDim,
      projection_class_embeddings_input_dim: addition,
    }),
    ...(timeCond !== undefined && { time_cond_proj_dim: timeCond }),
  };
}

function checkDivision(
  checkpoint: Checkpoint,
  option: keyof OriginalUnetOptions,
  what: string,
  channels: readonly number[],
  numbers: number | readonly number[],
): void {
  for (const [i, width] of channels.entries()) {
    const number = typeof numbers === "number" ? numbers : numbers[i];
    if (number !== undefined && Number.isInteger(number) && number > 0 && width % number === 0) continue;
    throw new FemoError(
      "E_CONFIG",
      `${checkpoint.name}: expected ${what} of which there is a whole number in each level's width, found ${number} for ` +
        `${width} channels. Pass ${option}, as the model's config has it.`,
    );
  }
}

/**
 * How many transformer blocks there are, as diffusers' config says it: one number, one for each level, or beside these, from
 * the deepest level up, those of the way up where that is no mirror of the way down.
 */
function depthsOf(checkpoint: Checkpoint, { down, up, mid }: UnetShape): OriginalUnet["config"] {
  const last = down.at(-1) as readonly number[];
  if (mid !== undefined && hasAttention(last) && !(isUniform(last) && last[0] === mid)) {
    refuse(checkpoint, `${mid} transformer blocks in the middle and ${last.join(", ")} in the deepest level`);
  }
  const entry = (level: readonly number[], without: number): number | readonly number[] =>
    isUniform(level) ? level[0] || without : level;
  const levels = down.map((level) => entry(level, level === last ? (mid ?? 1) : 1));
  const isMirror = up.every((level, i) => isUniform([...level, ...(down.at(-1 - i) as readonly number[])]));
  if (!isMirror) {
    return {
      transformer_layers_per_block: levels,
      reverse_transformer_layers_per_block: up.map((level) => entry(level, 1)),
    };
  }
  const used = [...down.filter(hasAttention).map(([depth = 1]) => depth), ...(mid === undefined ? [] : [mid])];
  return { transformer_layers_per_block: isUniform(used) ? (used[0] ?? 1) : levels };
}

/** What diffusers' model of a shape has, in the order of the data. */
export function unetTensors(shape: UnetShape): ExpectedTensor[] {
  const { inChannels, outChannels, channels, down, up, mid, context, addition, timeCond } = shape;
  const [base, deepest] = [channels[0] as number, channels.at(-1) as number];
  const embedding = 4 * base;
  const tensors: ExpectedTensor[] = [];
  const add = (name: string, ...shape: number[]): void => void tensors.push({ name, shape });
  /** Weight and bias; of a norm the weight has one axis too. */
  const layer = (name: string, ...shape: [number, ...number[]]): void => {
    add(`${name}.weight`, ...shape);
    add(`${name}.bias`, shape[0]);
  };
  const resnet = (name: string, from: number, to: number): void => {
    layer(`${name}.norm1`, from);
    layer(`${name}.conv1`, to, from, 3, 3);
    layer(`${name}.time_emb_proj`, to, embedding);
    layer(`${name}.norm2`, to);
    layer(`${name}.conv2`, to, to, 3, 3);
    if (from !== to) layer(`${name}.conv_shortcut`, to, from, 1, 1);
  };
  const attention = (name: string, width: number, text: number): void => {
    for (const part of ["to_q", "to_k", "to_v"]) add(`${name}.${part}.weight`, width, part === "to_q" ? width : text);
    layer(`${name}.to_out.0`, width, width);
  };
  const transformer = (name: string, width: number, depth: number): void => {
    if (depth === 0) return;
    const pixel = shape.linear ? [] : [1, 1];
    layer(`${name}.norm`, width);
    layer(`${name}.proj_in`, width, width, ...pixel);
    for (let i = 0; i < depth; i++) {
      const block = `${name}.transformer_blocks.${i}`;
      for (const norm of ["norm1", "norm2", "norm3"]) layer(`${block}.${norm}`, width);
      attention(`${block}.attn1`, width, width);
      attention(`${block}.attn2`, width, context);
      layer(`${block}.ff.net.0.proj`, 2 * MLP_RATIO * width, width);
      layer(`${block}.ff.net.2`, width, MLP_RATIO * width);
    }
    layer(`${name}.proj_out`, width, width, ...pixel);
  };

  layer("conv_in", base, inChannels, 3, 3);
  layer("time_embedding.linear_1", embedding, base);
  layer("time_embedding.linear_2", embedding, embedding);
  if (timeCond !== undefined) add("time_embedding.cond_proj.weight", base, timeCond);
  if (addition !== undefined) {
    layer("add_embedding.linear_1", embedding, addition);
    layer("add_embedding.linear_2", embedding, embedding);
  }
  const skips = [base];
  let x = base;
  for (const [i, level] of down.entries()) {
    const width = channels[i] as number;
    for (const [r, depth] of level.entries()) {
      resnet(`down_blocks.${i}.resnets.${r}`, x, width);
      transformer(`down_blocks.${i}.attentions.${r}`, width, depth);
      skips.push(width);
      x = width;
    }
    if (i === down.length - 1) continue;
    layer(`down_blocks.${i}.downsamplers.0.conv`, width, width, 3, 3);
    skips.push(width);
  }
  resnet("mid_block.resnets.0", deepest, deepest);
  if (mid !== undefined) {
    transformer("mid_block.attentions.0", deepest, mid);
    resnet("mid_block.resnets.1", deepest, deepest);
  }
  for (const [i, level] of up.entries()) {
    const width = channels.at(-1 - i) as number;
    for (const [r, depth] of level.entries()) {
      resnet(`up_blocks.${i}.resnets.${r}`, x + (skips.pop() as number), width);
      transformer(`up_blocks.${i}.attentions.${r}`, width, depth);
      x = width;
    }
    if (i < up.length - 1) layer(`up_blocks.${i}.upsamplers.0.conv`, width, width, 3, 3);
  }
  layer("conv_norm_out", base);
  layer("conv_out", outChannels, base, 3, 3);
  return tensors;
}
