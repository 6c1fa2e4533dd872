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
  /** What it is the autoencoder of, whose scale no shape tells. Default: "flux" */
  of?: keyof typeof RELEASES;
  /** Height and width of the images it was trained on. Default: that of the release */
  sampleSize?: number;
  /** Groups of every norm, which no shape tells. Default: 32, those of all published models. */
  normNumGroups?: number;
}

interface Release {
  readonly what: string;
  /** Whether it has convolutions of one pixel between encoder, latent and decoder. */
  readonly quantConv: boolean;
  /** What its config says beside sizes. */
  readonly config: Readonly<Record<string, unknown>>;
}

/** Whose autoencoders there are in files of that layout. */
const RELEASES = {
  flux: {
    what: "the autoencoder of FLUX.1",
    quantConv: false,
    config: { sample_size: 1024, scaling_factor: 0.3611, shift_factor: 0.1159 },
  },
  sd: {
    what: "the autoencoder of Stable Diffusion",
    quantConv: true,
    config: { sample_size: 512, scaling_factor: 0.18215, force_upcast: false },
  },
  // In float16 the published one overflows; that its repaired relatives do not, no file says.
  sdxl: {
    what: "the autoencoder of Stable Diffusion XL",
    quantConv: true,
    config: { sample_size: 1024, scaling_factor: 0.13025, force_upcast: true },
  },
} as const satisfies Record<string, Release>;

const MARKER = "decoder.mid.block_1.norm1.weight";
const PREFIXES = ["vae.", "first_stage_model."];
const partFor = ({ what }: Release): OriginalPart => ({ what, marker: MARKER, prefixes: PREFIXES });
/** What training leaves in files of an autoencoder alone. */
const LEFTOVERS = /^(loss|model_ema|discriminator)\./;

/** True if a file has an autoencoder under the names of the release. */
export const isOriginalAutoencoderKL = (checkpoint: Checkpoint): boolean => hasPart(checkpoint, partFor(RELEASES.flux));

/**
 * The weights of `ae.safetensors`, of `vae-ft-mse-840000-ema-pruned.safetensors` and the like, alone or in a file of several
 * models, as those of diffusers' `AutoencoderKL`, with the config that shapes tell and, beside it, scale, shift and size of
 * the release. Tensors of unknown names keep them, but for what training leaves.
 * @throws FemoError E_WEIGHT if it is not such an autoencoder, is one of another release, or has no such tensors
 */
export function originalAutoencoderKL(
  checkpoint: Checkpoint,
  { of = "flux", normNumGroups = 32, sampleSize }: OriginalAutoencoderKLOptions = {},
): OriginalAutoencoderKL {
  const release: Release = RELEASES[of];
  const own = partOf(checkpoint, partFor(release));
  checkRelease(checkpoint.name, release, own.get("post_quant_conv.weight") !== undefined);
  const shape = (name: string): readonly number[] => shapeOf(own, name, 4, release.what);
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
    use_quant_conv: release.quantConv,
    use_post_quant_conv: release.quantConv,
    ...release.config,
    ...(sampleSize !== undefined && { sample_size: sampleSize }),
  };
  const tensors = (own.tensors() as TensorInfo[]).filter(({ name }) => !LEFTOVERS.test(name));
  const renamed = tensors.map((tensor) => {
    const name = diffusersName(tensor.name, levels);
    return { ...tensor, name, shape: name.includes(".attentions.0.to_") ? tensor.shape.slice(0, 2) : tensor.shape };
  });
  return { config, checkpoint: own.withTensors(renamed) };
}

function checkRelease(name: string, { what, quantConv }: Release, found: boolean): void {
  if (found === quantConv) return;
  const advice = quantConv
    ? "Take the autoencoder that belongs to the model."
    : "Take the ae.safetensors of FLUX.1, or open this one as a folder in the layout of diffusers.";
  const other = found
    ? 'one with "post_quant_conv.weight", as Stable Diffusion has it'
    : 'one without "post_quant_conv.weight", as FLUX.1 has it';
  throw new FemoError("E_WEIGHT", `${name}: expected ${what}, found ${other}. ${advice}`);
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
