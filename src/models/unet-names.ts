/** How a U-Net is cut into levels, as far as the names of the original release depend on it. */
export interface UnetLayout {
  /** Residual blocks of a level on the way down; on the way up there is one more. */
  readonly layersPerBlock: number;
  /** Whether a layer of a level on the way up has attention, levels as diffusers counts them: the deepest is 0. */
  hasUpAttention(level: number, layer: number): boolean;
}

/** Parts outside the levels, from diffusers' names to those of the release. */
const OUTSIDE: ReadonlyMap<string, string> = new Map([
  ["conv_in", "input_blocks.0.0"],
  ["time_embedding.linear_1", "time_embed.0"],
  ["time_embedding.linear_2", "time_embed.2"],
  ["time_embedding.cond_proj", "time_embed.cond_proj"],
  ["add_embedding.linear_1", "label_emb.0.0"],
  ["add_embedding.linear_2", "label_emb.0.2"],
  ["conv_norm_out", "out.0"],
  ["conv_out", "out.2"],
]);

const RESNET: ReadonlyMap<string, string> = new Map([
  ["norm1", "in_layers.0"],
  ["conv1", "in_layers.2"],
  ["time_emb_proj", "emb_layers.1"],
  ["norm2", "out_layers.0"],
  ["conv2", "out_layers.3"],
  ["conv_shortcut", "skip_connection"],
]);

const IN_LEVEL = /^(down_blocks|up_blocks)\.(\d{1,4})\.(resnets|attentions|downsamplers|upsamplers)\.(\d{1,4})\.(.+)$/;
const IN_MIDDLE = /^mid_block\.(resnets|attentions)\.(\d{1,4})\.(.+)$/;

/**
 * The name that the original release of Stable Diffusion gives to a module of diffusers' `UNet2DConditionModel`, which
 * counts residual blocks and samplers of all levels in one list. Attention has equal names in both.
 * @param module without ".weight"
 * @returns undefined if the release's U-Net has no such module
 */
export function originalUnetModule(module: string, layout: UnetLayout): string | undefined {
  const outside = OUTSIDE.get(module);
  if (outside !== undefined) return outside;
  const [, middleKind, middle, inMiddle = ""] = IN_MIDDLE.exec(module) ?? [];
  if (middleKind === "resnets") return inResnet(`middle_block.${2 * Number(middle)}`, inMiddle);
  if (middleKind === "attentions") return `middle_block.${2 * Number(middle) + 1}.${inMiddle}`;
  const [, direction, level, kind, layer, rest = ""] = IN_LEVEL.exec(module) ?? [];
  if (direction === undefined) return undefined;
  const [i, r, stride] = [Number(level), Number(layer), layout.layersPerBlock + 1];
  const down = direction === "down_blocks";
  const block = down ? `input_blocks.${stride * i + r + 1}` : `output_blocks.${stride * i + r}`;
  if (kind === "resnets") return inResnet(`${block}.0`, rest);
  if (kind === "attentions") return `${block}.1.${rest}`;
  if (rest !== "conv" || r !== 0) return undefined;
  if (kind === "downsamplers") return down ? `input_blocks.${stride * (i + 1)}.0.op` : undefined;
  if (down) return undefined;
  const last = layout.layersPerBlock;
  return `output_blocks.${stride * i + last}.${layout.hasUpAttention(i, last) ? 2 : 1}.conv`;
}

function inResnet(resnet: string, part: string): string | undefined {
  const original = RESNET.get(part);
  return original && `${resnet}.${original}`;
}

const FIRST_RESNET = /^down_blocks\.0\.resnets\.(\d{1,4})\./;
const UP_ATTENTION = /^up_blocks\.(\d{1,4})\.attentions\.(\d{1,4})\./;

/** The layout of a U-Net by diffusers' names of its tensors. */
export function unetLayoutOf(names: readonly string[]): UnetLayout {
  let layersPerBlock = 0;
  const attentions = new Set<string>();
  for (const name of names) {
    const resnet = FIRST_RESNET.exec(name)?.[1];
    if (resnet !== undefined) layersPerBlock = Math.max(layersPerBlock, 1 + Number(resnet));
    const [, level, layer] = UP_ATTENTION.exec(name) ?? [];
    if (level !== undefined) attentions.add(`${Number(level)}.${Number(layer)}`);
  }
  return { layersPerBlock, hasUpAttention: (level, layer) => attentions.has(`${level}.${layer}`) };
}
