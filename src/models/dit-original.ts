import { FemoError } from "../errors.js";
import { type Checkpoint, type CheckpointTensor, type ExpectedTensor, rowsOf } from "../weights/index.js";
import { quote } from "../weights/text.js";
import { type DiTConfig, ditConfigFromJson } from "./dit.js";

/** A DiT of the original release, as `dit` takes it. */
export interface OriginalDiT {
  readonly config: DiTConfig;
  /** Tensors by diffusers' names, each a part of the original file. */
  readonly checkpoint: Checkpoint;
}

export interface OriginalDiTOptions {
  /** Attention heads, which no shape tells. Default: those of the paper's model of this width. */
  heads?: number;
}

/** Table 1 of arXiv 2212.09748, DiT-S, -B, -L and -XL: heads of 64 channels each, of 72 in XL. */
const HEADS_OF_WIDTH: ReadonlyMap<number, number> = new Map([
  [384, 6],
  [768, 12],
  [1024, 16],
  [1152, 16],
]);
const SINUSOID_CHANNELS = 256;

/**
 * The weights of the original release (`DiT-XL-2-256x256.pt`) as those of diffusers' `DiTTransformer2DModel`, with the
 * config that the shapes tell. Nothing is copied: the joint projection of queries, keys and values splits into three
 * ranges of rows, and the embedders that diffusers repeats in every block are the same bytes under every name.
 *
 * The model computes what the release computes, which is not quite what diffusers makes of these weights. diffusers took
 * other frequencies for the timestep, 10⁻⁴ to the power i/127 instead of i/128, and an epsilon of 1e-5 instead of 1e-6
 * in the second norm of each block; everything else agrees. At timestep 999 angles differ by up to 2.9 radians.
 * @throws FemoError E_WEIGHT if tensors are missing, surplus or of other shapes; E_CONFIG if the number of heads is not
 *   known, or a size is not that of a model
 */
export function originalDiT(checkpoint: Checkpoint, options: OriginalDiTOptions = {}): OriginalDiT {
  const config = inferConfig(checkpoint, options);
  checkpoint.verify(originalTensors(config));
  return { config, checkpoint: checkpoint.withTensors(renamedTensors(checkpoint, config)) };
}

/** What the shapes of a few tensors say of the whole model. */
function inferConfig(checkpoint: Checkpoint, { heads: given }: OriginalDiTOptions): DiTConfig {
  const shape = (name: string, axes: number): readonly number[] => {
    const found = checkpoint.get(name)?.shape;
    if (found?.length === axes) return found;
    const alike = checkpoint.names().find((other) => other.endsWith(`.${name}`));
    const advice = alike
      ? `It has ${quote(alike)}: it was saved as a part of something larger. Save the DiT alone.`
      : "A model in diffusers' layout is opened by the folder of the whole pipeline.";
    throw new FemoError(
      "E_WEIGHT",
      `${checkpoint.name}: expected a DiT or a FLUX.1 under the names of its release, for a DiT a tensor "${name}" of ${axes} axes, ` +
        `found ${found ? `${found.length} axes` : "none"}. ${advice}`,
    );
  };
  const [width, inChannels, patchSize] = shape("x_embedder.proj.weight", 4) as [number, number, number];
  const [, tokens] = shape("pos_embed", 3) as [number, number];
  const [rows] = shape("y_embedder.embedding_table.weight", 2) as [number];
  const [outputs] = shape("final_layer.linear.weight", 2) as [number];
  const depth = 1 + checkpoint.names().reduce((last, name) => Math.max(last, blockOf(name)), -1);

  const heads = given ?? HEADS_OF_WIDTH.get(width);
  if (heads === undefined || !(Number.isInteger(heads) && heads > 0 && width % heads === 0)) {
    throw new FemoError(
      "E_CONFIG",
      `${checkpoint.name}: expected a number of attention heads that divides the width ${width}, found ` +
        `${heads ?? "none that is known for it"}. Pass heads, the num_heads of the training script.`,
    );
  }
  const config = {
    num_attention_heads: heads,
    attention_head_dim: width / heads,
    in_channels: inChannels,
    out_channels: outputs / patchSize ** 2, // twice the inputs if the model learned a variance
    num_layers: depth,
    sample_size: patchSize * Math.sqrt(tokens),
    patch_size: patchSize,
    num_embeds_ada_norm: rows - 1, // the last row is the null class
    norm_eps: 1e-6,
  };
  return { ...ditConfigFromJson(config, `${checkpoint.name} (config inferred from shapes)`), downscaleFreqShift: 0 };
}

/** The number of the block a tensor belongs to; -1 if to none. */
const blockOf = (name: string): number => Number(/^blocks\.(\d{1,9})\./.exec(name)?.[1] ?? -1);

/** What the release's model has, by its names. */
function originalTensors(config: DiTConfig): ExpectedTensor[] {
  const width = config.numAttentionHeads * config.attentionHeadDim;
  const { patchSize, inChannels, outChannels, numLayers } = config;
  const linear = (name: string, outFeatures: number, inFeatures: number): ExpectedTensor[] => [
    { name: `${name}.weight`, shape: [outFeatures, inFeatures] },
    { name: `${name}.bias`, shape: [outFeatures] },
  ];
  const block = (name: string): ExpectedTensor[] => [
    ...linear(`${name}.attn.qkv`, 3 * width, width),
    ...linear(`${name}.attn.proj`, width, width),
    ...linear(`${name}.mlp.fc1`, 4 * width, width),
    ...linear(`${name}.mlp.fc2`, width, 4 * width),
    ...linear(`${name}.adaLN_modulation.1`, 6 * width, width),
  ];
  return [
    { name: "x_embedder.proj.weight", shape: [width, inChannels, patchSize, patchSize] },
    { name: "x_embedder.proj.bias", shape: [width] },
    ...linear("t_embedder.mlp.0", width, SINUSOID_CHANNELS),
    ...linear("t_embedder.mlp.2", width, width),
    { name: "y_embedder.embedding_table.weight", shape: [config.numEmbedsAdaNorm + 1, width] },
    { name: "pos_embed", shape: [1, (config.sampleSize / patchSize) ** 2, width] },
    ...Array.from({ length: numLayers }, (_, i) => block(`blocks.${i}`)).flat(),
    ...linear("final_layer.linear", patchSize ** 2 * outChannels, width),
    ...linear("final_layer.adaLN_modulation.1", 2 * width, width),
  ];
}

/** The same bytes by diffusers' names. The position table is left out: it is fixed, and `dit` computes it. */
function renamedTensors(checkpoint: Checkpoint, { numLayers }: DiTConfig): CheckpointTensor[] {
  const take = (original: string): CheckpointTensor => checkpoint.get(original) as CheckpointTensor; // verified before
  const layer = (name: string, original: string): CheckpointTensor[] =>
    ["weight", "bias"].map((kind) => ({ ...take(`${original}.${kind}`), name: `${name}.${kind}` }));
  /** One of equal ranges of the rows of a linear layer. */
  const part = (name: string, original: string, index: number, parts: number): CheckpointTensor[] =>
    layer(name, original).map((tensor) => {
      const rows = (tensor.shape[0] as number) / parts;
      return rowsOf(tensor, index * rows, (index + 1) * rows);
    });

  const block = (i: number): CheckpointTensor[] => {
    const [name, original] = [`transformer_blocks.${i}`, `blocks.${i}`];
    const table = "class_embedder.embedding_table.weight";
    return [
      ...layer(`${name}.norm1.emb.timestep_embedder.linear_1`, "t_embedder.mlp.0"),
      ...layer(`${name}.norm1.emb.timestep_embedder.linear_2`, "t_embedder.mlp.2"),
      { ...take("y_embedder.embedding_table.weight"), name: `${name}.norm1.emb.${table}` },
      ...layer(`${name}.norm1.linear`, `${original}.adaLN_modulation.1`),
      ...["to_q", "to_k", "to_v"].flatMap((to, j) => part(`${name}.attn1.${to}`, `${original}.attn.qkv`, j, 3)),
      ...layer(`${name}.attn1.to_out.0`, `${original}.attn.proj`),
      ...layer(`${name}.ff.net.0.proj`, `${original}.mlp.fc1`),
      ...layer(`${name}.ff.net.2`, `${original}.mlp.fc2`),
    ];
  };
  return [
    ...layer("pos_embed.proj", "x_embedder.proj"),
    ...Array.from({ length: numLayers }, (_, i) => block(i)).flat(),
    ...layer("proj_out_1", "final_layer.adaLN_modulation.1"),
    ...layer("proj_out_2", "final_layer.linear"),
  ];
}
