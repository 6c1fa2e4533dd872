import { FemoError } from "../errors.js";
import type { Checkpoint, TensorInfo } from "../weights/index.js";
import { countOf, hasPart, type OriginalPart, partOf, shapeOf } from "./original-parts.js";

/** An autoencoder of a single file. */
export interface OriginalAutoencoderKL {
  /** As diffusers' `vae/config.json`. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Tensors by diffusers' names, each where it lies in the file. */
  readonly checkpoint: Checkpoint;
}

export interface OriginalAutoencoderKLOptions {
  /** Groups of every norm, which no shape tells. Default: 32, those of all published models. */
  normNumGroups?: number;
}

const PART: OriginalPart = {
  what: "the autoencoder of FLUX.1",
  marker: "decoder.mid.block_1.norm1.weight",
  prefixes: ["vae.", "first_stage_model."],
};

/** True if a file has an autoencoder under the names of the release. */
export const isOriginalAutoencoderKL = (checkpoint: Checkpoint): boolean => hasPart(checkpoint, PART);

/**
 * The weights of `ae.safetensors`, alone or in a file of several models, as those of diffusers' `AutoencoderKL`, with the
 * config that shapes tell and, beside it, the scale, shift and size of FLUX.1. Tensors of unknown names keep them.
 * @throws FemoError E_WEIGHT if it is not such an autoencoder, as those of Stable Diffusion are not, or has no such tensors
 */
export function originalAutoencoderKL(
  checkpoint: Checkpoint,
  { normNumGroups = 32 }: OriginalAutoencoderKLOptions = {},
): OriginalAutoencoderKL {
  const own = partOf(checkpoint, PART);
  if (own.get("post_quant_conv.weight")) {
    throw new FemoError(
      "E_WEIGHT",
      `${checkpoint.name}: expected ${PART.what}, found one with "post_quant_conv.weight", as Stable Diffusion has it. ` +
        "Take the ae.safetensors of FLUX.1, or open this one as a folder in the layout of diffusers.",
    );
  }
  const shape = (name: string): readonly number[] => shapeOf(own, name, 4, PART.what);
  const [, latentChannels] = shape("decoder.conv_in.weight");
  const [outChannels] = shape("decoder.conv_out.weight");
  const levels = countOf(own, "decoder.up");
  const channels = Array.from({ length: levels }, (_, i) => shape(`decoder.up.${i}.block.0.conv1.weight`)[0]);
  const config = {
    _class_name: "AutoencoderKL",
    in_channels: own.get("encoder.conv_in.weight")?.shape[1] ?? outChannels,
    out_channels: outChannels,
    latent_channels: latentChannels,
    block_out_channels: channels,
    down_block_types: channels.map(() => "DownEncoderBlock2D"),
    up_block_types: channels.map(() => "UpDecoderBlock2D"),
    layers_per_block: countOf(own, "decoder.up.0.block") - 1,
    norm_num_groups: normNumGroups,
    act_fn: "silu",
    mid_block_add_attention: own.get("decoder.mid.attn_1.q.weight") !== undefined,
    use_quant_conv: false,
    use_post_quant_conv: false,
    sample_size: 1024,
    scaling_factor: 0.3611,
    shift_factor: 0.1159,
  };
  const renamed = (own.tensors() as TensorInfo[]).map((tensor) => {
    const name = diffusersName(tensor.name, levels);
    return { ...tensor, name, shape: name.includes(".attentions.0.to_") ? tensor.shape.slice(0, 2) : tensor.shape };
  });
  return { config, checkpoint: own.withTensors(renamed) };
}

const ATTENTION_PARTS: Readonly<Record<string, string>> = {
  norm: "group_norm",
  q: "to_q",
  k: "to_k",
  v: "to_v",
  proj_out: "to_out.0",
};

/** The release counts the decoder's levels from the image upwards, diffusers from the latent. */
function diffusersName(name: string, levels: number): string {
  const upwards = (level: string): number => levels - 1 - Number(level);
  return name
    .replace(/^(encoder|decoder)\.mid\.block_([12])\./, (_, half, i) => `${half}.mid_block.resnets.${Number(i) - 1}.`)
    .replace(
      /^(encoder|decoder)\.mid\.attn_1\.(norm|q|k|v|proj_out)\./,
      (_, half, part) => `${half}.mid_block.attentions.0.${ATTENTION_PARTS[part]}.`,
    )
    .replace(/^decoder\.up\.(\d+)\.block\./, (_, level) => `decoder.up_blocks.${upwards(level)}.resnets.`)
    .replace(/^decoder\.up\.(\d+)\.upsample\./, (_, level) => `decoder.up_blocks.${upwards(level)}.upsamplers.0.`)
    .replace(/^encoder\.down\.(\d+)\.block\./, "encoder.down_blocks.$1.resnets.")
    .replace(/^encoder\.down\.(\d+)\.downsample\./, "encoder.down_blocks.$1.downsamplers.0.")
    .replace(/(\.resnets\.\d+)\.nin_shortcut\./, "$1.conv_shortcut.")
    .replace(/^(encoder|decoder)\.norm_out\./, "$1.conv_norm_out.");
}
