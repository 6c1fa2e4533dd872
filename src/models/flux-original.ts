import { FemoError } from "../errors.js";
import { BLOCK_TYPES, type BlockType } from "../weights/gguf-blocks.js";
import type { Checkpoint, ExpectedTensor } from "../weights/index.js";
import { Renaming, type Rows } from "../weights/renamed.js";
import { type ScaledCheckpoint, separateScales } from "../weights/scaled-float8.js";
import { COMPUTABLE } from "../weights/verify.js";
import { type FluxConfig, fluxConfigFromJson } from "./flux-config.js";
import { countOf, hasPart, type OriginalPart, partOf, prefixOf, shapeOf } from "./original-parts.js";

/** A FLUX.1 transformer of a single file, as `flux` takes it. */
export interface OriginalFlux {
  readonly config: FluxConfig;
  /** Tensors by diffusers' names, each a part of the original file or computed from one. */
  readonly checkpoint: Checkpoint;
  /** Whose schedule it was trained for, a key of `fluxSchedulers`. */
  readonly scheduler: keyof typeof fluxSchedulers;
}

export interface OriginalFluxOptions {
  /**
   * Channels of a head that turn with index, row and column. Default: 16, 56, 56 of heads of 128, and of others the same
   * shares, an eighth and twice seven sixteenths, where these are even numbers.
   */
  axesDimsRope?: readonly number[];
}

const flowMatching = {
  _class_name: "FlowMatchEulerDiscreteScheduler",
  num_train_timesteps: 1000,
  base_image_seq_len: 256,
  max_image_seq_len: 4096,
  base_shift: 0.5,
  max_shift: 1.15,
};

/** `scheduler_config.json` of the published models: FLUX.1-dev shifts by the number of tokens, FLUX.1-schnell does not. */
export const fluxSchedulers = {
  dev: { ...flowMatching, shift: 3, use_dynamic_shifting: true },
  schnell: { ...flowMatching, shift: 1, use_dynamic_shifting: false },
} as const;

const PART: OriginalPart = {
  what: "a FLUX.1 transformer",
  marker: "double_blocks.0.img_attn.norm.key_norm.scale",
  prefixes: ["model.diffusion_model.", "diffusion_model."],
};
/** Relatives that have blocks of the same names, by the start of names that only they have. */
const RELATIVES: readonly (readonly [start: string, model: string])[] = [
  ["distilled_guidance_layer.", "Chroma"],
  ["single_stream_modulation.", "FLUX.2"],
  ["double_stream_modulation_img.", "FLUX.2"],
];
/** Models whose input is wider than their output, by the channels of a token. */
const OTHER_INPUTS: ReadonlyMap<number, string> = new Map([
  [128, "FLUX.1 Canny or Depth, which take a control image"],
  [384, "FLUX.1 Fill, which takes an image and a mask"],
]);
const SINUSOID_CHANNELS = 256;
const MLP_RATIO = 4;

/** True if a file has a FLUX.1 transformer under the names of the release. */
export const isOriginalFlux = (checkpoint: Checkpoint): boolean => hasPart(checkpoint, PART);

/**
 * The weights of a single file (`flux1-dev.safetensors`, also in 8-bit floating point, a GGUF file, or a file that has the
 * text encoders and the autoencoder too) as those of diffusers' `FluxTransformer2DModel`, with the config that the shapes
 * tell. What the release joins (queries, keys, values, and in a single block the MLP) splits into ranges of rows, which are
 * ranges of bytes in every type. Computed are `norm_out.linear`, where diffusers has scale and shift the other way round,
 * weights in 8-bit floating point with a scale beside them, and what is in GGUF's blocks: matrices in few bits, without
 * loss.
 *
 * With an embedding of the guidance scale it is taken for a FLUX.1-dev, without for a FLUX.1-schnell. No shape tells
 * Kontext from dev.
 * @throws FemoError E_WEIGHT if it is another model, or tensors are missing, surplus or of other shapes, or as
 *   `separateScales`; E_CONFIG if the axes of the rotary embedding are not known, or a size is not that of a model
 */
export async function originalFlux(checkpoint: Checkpoint, options: OriginalFluxOptions = {}): Promise<OriginalFlux> {
  const prefix = prefixOf(checkpoint, PART) ?? "";
  const relative = RELATIVES.find(([start]) => checkpoint.names().some((name) => name.startsWith(prefix + start)));
  if (relative) refuse(checkpoint, relative[1]);
  const scaled = await separateScales(partOf(checkpoint, PART));
  const config = inferConfig(scaled.checkpoint, options);
  const dtypes = [...COMPUTABLE, ...(Object.keys(BLOCK_TYPES) as BlockType[])];
  scaled.checkpoint.verify(originalFluxTensors(config), { dtypes });
  return { config, checkpoint: renamed(scaled, config), scheduler: config.guidanceEmbeds ? "dev" : "schnell" };
}

function refuse(checkpoint: Checkpoint, model: string): never {
  throw new FemoError(
    "E_WEIGHT",
    `${checkpoint.name}: expected a FLUX.1 that makes images of text, such as FLUX.1-dev; found ${model}, which is not ` +
      "supported. Take another file.",
  );
}

/** What the shapes of a few tensors say of the whole model. */
function inferConfig(checkpoint: Checkpoint, { axesDimsRope }: OriginalFluxOptions): FluxConfig {
  const shape = (name: string, axes: number) => shapeOf(checkpoint, name, axes, PART.what);
  const [width, inChannels] = shape("img_in.weight", 2) as [number, number];
  const [outChannels] = shape("final_layer.linear.weight", 2) as [number];
  const [, joint] = shape("txt_in.weight", 2) as [number, number];
  const [, pooled] = shape("vector_in.in_layer.weight", 2) as [number, number];
  const [headDim] = shape("double_blocks.0.img_attn.norm.query_norm.scale", 1) as [number];
  if (inChannels !== outChannels) {
    const other = `a model that takes ${inChannels} channels for each token and gives ${outChannels}`;
    refuse(checkpoint, OTHER_INPUTS.get(inChannels) ?? other);
  }
  const axes = axesDimsRope ?? [headDim / 8, (7 * headDim) / 16, (7 * headDim) / 16];
  if (!axesDimsRope && headDim % 32 !== 0) {
    throw new FemoError(
      "E_CONFIG",
      `${checkpoint.name}: expected heads of a multiple of 32 channels, found ${headDim}, of which it is not known how ` +
        "many turn along each axis. Pass axesDimsRope, the axes_dim of the training script.",
    );
  }
  const json = {
    in_channels: inChannels,
    num_layers: countOf(checkpoint, "double_blocks"),
    num_single_layers: countOf(checkpoint, "single_blocks"),
    attention_head_dim: headDim,
    num_attention_heads: width / headDim,
    joint_attention_dim: joint,
    pooled_projection_dim: pooled,
    guidance_embeds: checkpoint.get("guidance_in.in_layer.weight") !== undefined,
    axes_dims_rope: axes,
  };
  return fluxConfigFromJson(json, `${checkpoint.name} (config inferred from shapes)`);
}

const widthOf = ({ numAttentionHeads, attentionHeadDim }: FluxConfig): number => numAttentionHeads * attentionHeadDim;

/** A layer of the release, what becomes of it, and its size; what it joins are equal ranges of rows but for the last. */
interface Layer {
  readonly original: string;
  /** diffusers' names, in the order of the rows. */
  readonly names: readonly string[];
  readonly inFeatures: number;
  /** Rows of each of `names`. */
  readonly rows: readonly number[];
}

/** All linear layers but the last modulation. */
function layers(config: FluxConfig): Layer[] {
  const [width, hidden] = [widthOf(config), MLP_RATIO * widthOf(config)];
  const layer = (original: string, name: string, inFeatures: number, rows: number): Layer => ({
    ...{ original, inFeatures },
    names: [name],
    rows: [rows],
  });
  const embedder = (original: string, name: string, inFeatures: number): Layer[] => [
    layer(`${original}.in_layer`, `time_text_embed.${name}_embedder.linear_1`, inFeatures, width),
    layer(`${original}.out_layer`, `time_text_embed.${name}_embedder.linear_2`, width, width),
  ];
  const joined = (original: string, names: readonly string[], rows: readonly number[]): Layer => ({
    ...{ original, names, rows },
    inFeatures: width,
  });
  const double = (i: number): Layer[] => {
    const [from, to] = [`double_blocks.${i}`, `transformer_blocks.${i}`];
    const stream = (stream: string, suffix: string, projections: readonly string[], out: string): Layer[] => [
      layer(`${from}.${stream}_mod.lin`, `${to}.norm1${suffix}.linear`, width, 6 * width),
      joined(
        `${from}.${stream}_attn.qkv`,
        projections.map((part) => `${to}.attn.${part}`),
        [width, width, width],
      ),
      layer(`${from}.${stream}_attn.proj`, `${to}.attn.${out}`, width, width),
      layer(`${from}.${stream}_mlp.0`, `${to}.ff${suffix}.net.0.proj`, width, hidden),
      layer(`${from}.${stream}_mlp.2`, `${to}.ff${suffix}.net.2`, hidden, width),
    ];
    return [
      ...stream("img", "", ["to_q", "to_k", "to_v"], "to_out.0"),
      ...stream("txt", "_context", ["add_q_proj", "add_k_proj", "add_v_proj"], "to_add_out"),
    ];
  };
  const single = (i: number): Layer[] => {
    const [from, to] = [`single_blocks.${i}`, `single_transformer_blocks.${i}`];
    return [
      layer(`${from}.modulation.lin`, `${to}.norm.linear`, width, 3 * width),
      joined(
        `${from}.linear1`,
        [...["to_q", "to_k", "to_v"].map((part) => `${to}.attn.${part}`), `${to}.proj_mlp`],
        [width, width, width, hidden],
      ),
      layer(`${from}.linear2`, `${to}.proj_out`, width + hidden, width),
    ];
  };
  return [
    layer("img_in", "x_embedder", config.inChannels, width),
    layer("txt_in", "context_embedder", config.jointAttentionDim, width),
    ...embedder("time_in", "timestep", SINUSOID_CHANNELS),
    ...embedder("vector_in", "text", config.pooledProjectionDim),
    ...(config.guidanceEmbeds ? embedder("guidance_in", "guidance", SINUSOID_CHANNELS) : []),
    ...Array.from({ length: config.numLayers }, (_, i) => double(i)).flat(),
    ...Array.from({ length: config.numSingleLayers }, (_, i) => single(i)).flat(),
    layer("final_layer.linear", "proj_out", width, config.outChannels),
  ];
}

/** Norms of queries and keys, [original, diffusers' name]. */
function norms({ numLayers, numSingleLayers }: FluxConfig): [string, string][] {
  const pair = (from: string, to: string): [string, string][] => [
    [`${from}.query_norm.scale`, `${to}q.weight`],
    [`${from}.key_norm.scale`, `${to}k.weight`],
  ];
  return [
    ...Array.from({ length: numLayers }, (_, i) => [
      ...pair(`double_blocks.${i}.img_attn.norm`, `transformer_blocks.${i}.attn.norm_`),
      ...pair(`double_blocks.${i}.txt_attn.norm`, `transformer_blocks.${i}.attn.norm_added_`),
    ]).flat(),
    ...Array.from({ length: numSingleLayers }, (_, i) =>
      pair(`single_blocks.${i}.norm`, `single_transformer_blocks.${i}.attn.norm_`),
    ).flat(),
  ];
}

const LAST_MODULATION = "final_layer.adaLN_modulation.1";

/** What the release's model has, by its names. */
export function originalFluxTensors(config: FluxConfig): ExpectedTensor[] {
  const linear = (name: string, outFeatures: number, inFeatures: number): ExpectedTensor[] => [
    { name: `${name}.weight`, shape: [outFeatures, inFeatures] },
    { name: `${name}.bias`, shape: [outFeatures] },
  ];
  return [
    ...layers(config).flatMap(({ original, rows, inFeatures }) =>
      linear(
        original,
        rows.reduce((sum, count) => sum + count, 0),
        inFeatures,
      ),
    ),
    ...norms(config).map(([name]) => ({ name, shape: [config.attentionHeadDim] })),
    ...linear(LAST_MODULATION, 2 * widthOf(config), widthOf(config)),
  ];
}

/** The same by diffusers' names. */
function renamed(scaled: ScaledCheckpoint, config: FluxConfig): Checkpoint {
  const renaming = new Renaming(scaled);
  for (const { original, names, rows } of layers(config)) {
    let start = 0;
    for (const [i, name] of names.entries()) {
      const range: Rows = [start, start + (rows[i] as number)];
      for (const kind of ["weight", "bias"]) renaming.take(`${name}.${kind}`, `${original}.${kind}`, range);
      start = range[1];
    }
  }
  for (const [original, name] of norms(config)) renaming.take(name, original);
  for (const kind of ["weight", "bias"]) renaming.takeSwapped(`norm_out.linear.${kind}`, `${LAST_MODULATION}.${kind}`);
  return renaming.checkpoint();
}
