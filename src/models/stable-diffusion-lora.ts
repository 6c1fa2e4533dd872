import type { Checkpoint, DerivedTensor, LoraAdapter, LoraTarget } from "../weights/index.js";
import { mergeLora } from "../weights/lora.js";
import { originalUnetModule, unetLayoutOf } from "./unet-names.js";

/** The parts of a pipeline that a LoRA file may be for, as diffusers names them. */
type Component = "unet" | "text_encoder" | "text_encoder_2";

/** What LoRA is merged into, by the names of diffusers' `UNet2DConditionModel` and transformers' `CLIPTextModel`. */
export interface StableDiffusionLoraBases {
  readonly unet: Checkpoint;
  /** With or without `text_model.` before its names, as the second. */
  readonly textEncoder?: Checkpoint | undefined;
  readonly textEncoder2?: Checkpoint | undefined;
}

export interface StableDiffusionLora {
  /** The tensors of the U-Net that change. */
  readonly unet: readonly DerivedTensor[];
  readonly textEncoder: readonly DerivedTensor[];
  readonly textEncoder2: readonly DerivedTensor[];
  /** What of the files was not merged. */
  readonly notes: readonly string[];
}

/**
 * The weights of a Stable Diffusion pipeline, 1, 2 or XL, with LoRA files merged in, convolutions too, by the names that the
 * common trainers give: kohya's scripts and LyCORIS, whose names for XL are those of the original release, diffusers of all
 * versions, PEFT, ComfyUI. Each module has its own alpha, where diffusers 0.42 gives attention and text encoders the most
 * frequent one of the file.
 * @throws FemoError as `mergeLora`
 */
export async function stableDiffusionLora(
  { unet, textEncoder, textEncoder2 }: StableDiffusionLoraBases,
  adapters: readonly LoraAdapter[],
): Promise<StableDiffusionLora> {
  const bases = {
    unet,
    ...(textEncoder && { text_encoder: textEncoder }),
    ...(textEncoder2 && { text_encoder_2: textEncoder2 }),
  };
  const tables: Tables = {
    unet: unetTable(unet),
    text_encoder: textEncoder ? textEncoderTable(textEncoder) : new Map(),
    text_encoder_2: textEncoder2 ? textEncoderTable(textEncoder2) : new Map(),
  };
  const { derived, notes } = await mergeLora<Component>(bases, adapters, (path) => {
    const target = targetOf(path, tables);
    return target && !target.modules.length && bases[target.component] ? undefined : target;
  });
  return {
    unet: derived.get("unet") ?? [],
    textEncoder: derived.get("text_encoder") ?? [],
    textEncoder2: derived.get("text_encoder_2") ?? [],
    notes,
  };
}

/** A model's modules by the names that files give them, with "_" for ".". */
type Table = ReadonlyMap<string, string>;
type Tables = Readonly<Record<Component, Table>>;

const PEFT = /^base_model\.model\./;
const PREFIXES: readonly (readonly [prefix: RegExp, component: Component])[] = [
  [/^(?:text_encoder_2\.|lora_te2_|text_encoders\.clip_g\.transformer\.)/, "text_encoder_2"],
  [/^(?:text_encoder\.|lora_te1?_|text_encoders\.clip_[hl]\.transformer\.)/, "text_encoder"],
  [/^(?:unet\.|lora_unet_|(?:model\.)?diffusion_model\.)?/, "unet"],
];

/** What a file means by a name; without modules if it is of a part, but none that the model has. */
function targetOf(path: string, tables: Tables): LoraTarget<Component> | undefined {
  const name = path.replace(PEFT, "");
  for (const [prefix, component] of PREFIXES) {
    if (!prefix.test(name)) continue;
    // kohya's names have "_" for ".", so all names are looked up that way.
    const module = tables[component].get(flat(name.replace(prefix, "")));
    return { component, modules: module === undefined ? [] : [module] };
  }
  return undefined;
}

const flat = (name: string): string => name.replaceAll(".", "_");

/** The modules of a model that are matrices or convolutions. */
function* modulesOf(checkpoint: Checkpoint): Generator<string> {
  const end = ".weight";
  for (const { name, shape } of checkpoint.tensors()) {
    if (name.endsWith(end) && shape.length > 1) yield name.slice(0, -end.length);
  }
}

/** What diffusers before 0.22 called the adapters of attention, of which it had a processor of their own. */
const OLD_ATTENTION = /^(.*\.attn[12])\.(to_[qkv]|to_out)(?:\.0)?$/;
const OLD_TEXT_ATTENTION = /^(.*\.self_attn)\.(q|k|v|out)_proj$/;

function unetTable(unet: Checkpoint): Table {
  const layout = unetLayoutOf(unet.names());
  const table = new Map<string, string>();
  for (const module of modulesOf(unet)) {
    const original = originalUnetModule(module, layout);
    table.set(flat(module), module);
    if (original !== undefined) table.set(flat(original), module);
    const [, attention, part] = OLD_ATTENTION.exec(module) ?? [];
    if (attention !== undefined) table.set(flat(`${attention}.processor.${part}_lora`), module);
  }
  return table;
}

const TEXT_MODEL = "text_model.";

function textEncoderTable(textEncoder: Checkpoint): Table {
  const table = new Map<string, string>();
  for (const module of modulesOf(textEncoder)) {
    const short = module.startsWith(TEXT_MODEL) ? module.slice(TEXT_MODEL.length) : module;
    const [, attention, part] = OLD_TEXT_ATTENTION.exec(short) ?? [];
    for (const name of [short, ...(attention === undefined ? [] : [`${attention}.to_${part}_lora`])]) {
      for (const prefix of ["", TEXT_MODEL]) table.set(flat(prefix + name), module);
    }
  }
  return table;
}
