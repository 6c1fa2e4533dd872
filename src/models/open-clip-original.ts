import { FemoError } from "../errors.js";
import type { Checkpoint, ExpectedTensor } from "../weights/index.js";
import { Renaming, type Rows } from "../weights/renamed.js";
import { separateScales } from "../weights/scaled-float8.js";
import { countOf, hasPart, type OriginalPart, partOf, shapeOf } from "./original-parts.js";
import type { OriginalClipTextOptions, OriginalTextEncoder } from "./text-encoders-original.js";

export interface OriginalOpenClipOptions extends OriginalClipTextOptions {
  /**
   * What the model takes of it: "pooled", as Stable Diffusion XL, of all layers and the projection; or "penultimate", as
   * Stable Diffusion 2, which passes the last layer but one to the last norm, so that the last layer and the projection
   * are left out.
   */
  readonly use: "pooled" | "penultimate";
}

const PART: OriginalPart = {
  what: "the text encoder of OpenCLIP",
  marker: "transformer.resblocks.0.attn.in_proj_weight",
  prefixes: ["cond_stage_model.model.", "conditioner.embedders.1.model.", "conditioner.embedders.0.model."],
};
const HEAD = 64;
/** OpenCLIP-H, which some files have without the layer that nobody uses. */
const PUBLISHED = { width: 1024, used: 23 };
const MAX_LAYERS = 1024;
/** The rest of a whole OpenCLIP, and its mask. */
const OTHERS = /^(?:logit_scale|visual\.|attn_mask$|text_projection$|position_ids$)/;

/** True if a file has OpenCLIP's text encoder under the names of its release. */
export const isOriginalOpenClip = (checkpoint: Checkpoint): boolean => hasPart(checkpoint, PART);

/**
 * The text encoder of OpenCLIP (ViT-H of Stable Diffusion 2, ViT-bigG of XL and its refiner) in a single file as that of
 * transformers, by the names of `clipTextEncoder`, with the config that shapes tell. Queries, keys and values, which the
 * release joins, are ranges of its rows; computed is only the projection, which the release multiplies from the other side.
 * @throws FemoError E_WEIGHT if the file has no such encoder, or tensors are missing or of other shapes, or as
 *   `separateScales`; E_CONFIG if its width is no multiple of 64 and the heads are not given
 */
export async function originalOpenClip(
  checkpoint: Checkpoint,
  { use, numAttentionHeads }: OriginalOpenClipOptions,
): Promise<OriginalTextEncoder> {
  const scaled = await separateScales(partOf(checkpoint, PART));
  const own = scaled.checkpoint;
  const shape = (name: string) => shapeOf(own, name, 2, PART.what) as [number, number];
  const [vocabulary, width] = shape("token_embedding.weight");
  const [positions] = shape("positional_embedding");
  const [hidden] = shape("transformer.resblocks.0.mlp.c_fc.weight");
  const stored = countOf(own, "transformer.resblocks");
  if (stored > MAX_LAYERS) {
    const problem = `expected at most ${MAX_LAYERS} layers, found "transformer.resblocks.${stored - 1}"`;
    throw new FemoError("E_WEIGHT", `${checkpoint.name}: ${problem}. The file is damaged: download it again.`);
  }
  const isShort = width === PUBLISHED.width && stored === PUBLISHED.used;
  const layers = use === "pooled" || isShort ? stored : stored - 1;
  const heads = numAttentionHeads ?? width / HEAD;
  if (!(Number.isInteger(heads) && heads > 0 && width % heads === 0)) {
    throw new FemoError(
      "E_CONFIG",
      `${checkpoint.name}: expected a number of attention heads that divides the width ${width}, found ${heads}. ` +
        "Pass numAttentionHeads, the num_attention_heads of its config.",
    );
  }
  const projection = use === "pooled" ? shape("text_projection")[1] : undefined;
  const { tensors, take } = layersOf({ width, hidden, vocabulary, positions, layers });
  const expected = [...tensors, ...(projection ? [{ name: "text_projection", shape: [width, projection] }] : [])];
  const isUnused = (name: string): boolean => OTHERS.test(name) || name.startsWith(`transformer.resblocks.${layers}.`);
  own.verify(expected, { ignore: isUnused });

  const renaming = new Renaming(scaled);
  for (const [name, original, rows] of take) renaming.take(name, original, rows);
  if (projection) renaming.takeTransposed("text_projection.weight", "text_projection");
  const config = {
    model_type: "clip_text_model",
    vocab_size: vocabulary,
    hidden_size: width,
    intermediate_size: hidden,
    ...(projection && { projection_dim: projection }),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    max_position_embeddings: positions,
    hidden_act: "gelu",
    layer_norm_eps: 1e-5,
    eos_token_id: 2, // as in the configs of the published encoders: the greatest id is pooled
  };
  return { config, checkpoint: renaming.checkpoint() };
}

interface Sizes {
  readonly width: number;
  readonly hidden: number;
  readonly vocabulary: number;
  readonly positions: number;
  readonly layers: number;
}

/** Parts of a layer with weight and bias, the release's name and transformers', and how their sizes follow from others. */
const PARTS = [
  ["ln_1", "layer_norm1", ({ width }: Sizes) => [width]],
  ["ln_2", "layer_norm2", ({ width }: Sizes) => [width]],
  ["attn.out_proj", "self_attn.out_proj", ({ width }: Sizes) => [width, width]],
  ["mlp.c_fc", "mlp.fc1", ({ width, hidden }: Sizes) => [hidden, width]],
  ["mlp.c_proj", "mlp.fc2", ({ width, hidden }: Sizes) => [width, hidden]],
] as const;

/** What the release has, and what is taken of it: transformers' name, the release's, rows. */
function layersOf(sizes: Sizes) {
  const { width, vocabulary, positions, layers } = sizes;
  const tensors: ExpectedTensor[] = [
    { name: "token_embedding.weight", shape: [vocabulary, width] },
    { name: "positional_embedding", shape: [positions, width] },
  ];
  const take: [name: string, original: string, rows?: Rows][] = [
    ["embeddings.token_embedding.weight", "token_embedding.weight"],
    ["embeddings.position_embedding.weight", "positional_embedding"],
  ];
  const pair = (original: string, name: string, shape: readonly number[]): void => {
    tensors.push({ name: `${original}.weight`, shape }, { name: `${original}.bias`, shape: shape.slice(0, 1) });
    for (const kind of ["weight", "bias"]) take.push([`${name}.${kind}`, `${original}.${kind}`]);
  };
  for (let i = 0; i < layers; i++) {
    const [from, to] = [`transformer.resblocks.${i}`, `encoder.layers.${i}`];
    for (const [original, name, shapeIn] of PARTS) pair(`${from}.${original}`, `${to}.${name}`, shapeIn(sizes));
    for (const kind of ["weight", "bias"]) {
      const original = `${from}.attn.in_proj_${kind}`;
      tensors.push({ name: original, shape: kind === "weight" ? [3 * width, width] : [3 * width] });
      for (const [j, part] of ["q", "k", "v"].entries()) {
        take.push([`${to}.self_attn.${part}_proj.${kind}`, original, [j * width, (j + 1) * width]]);
      }
    }
  }
  pair("ln_final", "final_layer_norm", [width]);
  return { tensors, take };
}
