import type { Checkpoint, DerivedTensor, LoraAdapter, LoraTarget } from "../weights/index.js";
import { mergeLora } from "../weights/lora.js";

/** The parts of a FLUX pipeline that a LoRA file may be for, as diffusers names them. */
type Component = "transformer" | "text_encoder" | "text_encoder_2";

/** What LoRA is merged into: weights by the names of diffusers' `FluxTransformer2DModel` and transformers' `CLIPTextModel`. */
export interface FluxLoraBases {
  readonly transformer: Checkpoint;
  /** With or without `text_model.` before its names. */
  readonly textEncoder?: Checkpoint;
}

export interface FluxLora {
  /** The tensors of the transformer that change. */
  readonly transformer: readonly DerivedTensor[];
  /** The tensors of the CLIP text encoder that change. */
  readonly textEncoder: readonly DerivedTensor[];
  /** What of the files was not merged, or otherwise than diffusers would. */
  readonly notes: readonly string[];
}

/**
 * The weights of a FLUX pipeline with LoRA files merged in, by the names that the common trainers give: diffusers and PEFT,
 * ai-toolkit, kohya's scripts and ComfyUI, XLabs. What they have for T5 is not merged, as in diffusers, and noted.
 * @throws FemoError as `mergeLora`
 */
export async function fluxLora(bases: FluxLoraBases, adapters: readonly LoraAdapter[]): Promise<FluxLora> {
  const { transformer, textEncoder } = bases;
  const clipPrefix = textEncoder?.get("final_layer_norm.weight") ? "" : "text_model.";
  const { derived, notes } = await mergeLora<Component>(
    { transformer, ...(textEncoder && { text_encoder: textEncoder }) },
    adapters,
    (path) => fluxLoraTarget(path, clipPrefix),
  );
  return {
    transformer: derived.get("transformer") ?? [],
    textEncoder: derived.get("text_encoder") ?? [],
    notes,
  };
}

/** diffusers' modules of a block of each kind, with their names in the authors' model and in XLabs' adapters for it. */
const DOUBLE_BLOCK: readonly (readonly [modules: readonly string[], ...originals: string[]])[] = [
  [["attn.to_q", "attn.to_k", "attn.to_v"], "img_attn.qkv", "processor.qkv_lora1"],
  [["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"], "txt_attn.qkv", "processor.qkv_lora2"],
  [["attn.to_out.0"], "img_attn.proj", "processor.proj_lora1"],
  [["attn.to_add_out"], "txt_attn.proj", "processor.proj_lora2"],
  [["ff.net.0.proj"], "img_mlp.0"],
  [["ff.net.2"], "img_mlp.2"],
  [["ff_context.net.0.proj"], "txt_mlp.0"],
  [["ff_context.net.2"], "txt_mlp.2"],
  [["norm1.linear"], "img_mod.lin"],
  [["norm1_context.linear"], "txt_mod.lin"],
];
const SINGLE_BLOCK: typeof DOUBLE_BLOCK = [
  [["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"], "linear1"],
  [["attn.to_q", "attn.to_k", "attn.to_v"], "processor.qkv_lora"],
  [["proj_out"], "linear2", "processor.proj_lora"],
  [["norm.linear"], "modulation.lin"],
];
/** The modules outside blocks. The last modulation has shift and scale the other way round in the authors' model. */
const AROUND_BLOCKS: readonly (readonly [module: string, original: string, ...swapped: "swapped"[]])[] = [
  ["x_embedder", "img_in"],
  ["context_embedder", "txt_in"],
  ["time_text_embed.timestep_embedder.linear_1", "time_in.in_layer"],
  ["time_text_embed.timestep_embedder.linear_2", "time_in.out_layer"],
  ["time_text_embed.guidance_embedder.linear_1", "guidance_in.in_layer"],
  ["time_text_embed.guidance_embedder.linear_2", "guidance_in.out_layer"],
  ["time_text_embed.text_embedder.linear_1", "vector_in.in_layer"],
  ["time_text_embed.text_embedder.linear_2", "vector_in.out_layer"],
  ["norm_out.linear", "final_layer.adaLN_modulation.1", "swapped"],
  ["proj_out", "final_layer.linear"],
];

/** kohya's names have "_" for ".", so all names are looked up that way. */
const flat = (name: string): string => name.replaceAll(".", "_");

/** Modules of a block by their flat names. */
const blockTable = (rows: typeof DOUBLE_BLOCK): ReadonlyMap<string, readonly string[]> =>
  new Map(
    rows.flatMap(([modules, ...originals]) => [
      ...modules.map((module) => [flat(module), [module]] as const),
      ...originals.map((original) => [flat(original), modules] as const),
    ]),
  );

const BLOCKS: ReadonlyMap<string, { name: string; modules: ReadonlyMap<string, readonly string[]> }> = new Map(
  (
    [
      ["transformer_blocks", "double_blocks", DOUBLE_BLOCK],
      ["single_transformer_blocks", "single_blocks", SINGLE_BLOCK],
    ] as const
  ).flatMap(([name, original, rows]) => {
    const block = { name, modules: blockTable(rows) };
    return [
      [name, block],
      [original, block],
    ];
  }),
);

const OUTSIDE: ReadonlyMap<string, LoraTarget<Component>> = new Map(
  AROUND_BLOCKS.flatMap(([module, original, swapped]) => {
    const target: LoraTarget<Component> = {
      component: "transformer",
      modules: [module],
      ...(module === "x_embedder" && {
        advice: "An adapter of more columns is a control LoRA (Canny, Depth), which needs a model of another input.",
      }),
    };
    const remark = "are merged here, while diffusers 0.42 leaves them out";
    return [
      [flat(module), target],
      [flat(original), { ...target, remark, ...(swapped && { swapped: true }) }],
    ] as const;
  }),
);

const TRANSFORMER =
  /^(?:base_model\.model\.)?(?:(?:model\.)?diffusion_model\.|transformer\.|lora_unet_|lora_transformer_)?(.+)$/;
const BLOCK = /^((?:single_)?(?:transformer_)?blocks|double_blocks)_(\d{1,4})_(.+)$/;
const CLIP = /^(?:text_encoder\.|text_encoders\.clip_l\.transformer\.|lora_te1?_)(.+)$/;
const CLIP_LAYER = /^(?:text_model_)?encoder_layers_(\d{1,4})_(?:self_attn_([qkv]|out)_proj|mlp_(fc[12]))$/;
const T5 = /^(?:text_encoder_2\.|text_encoders\.t5xxl\.|lora_te[23]_)/;

/**
 * The modules of a FLUX pipeline that a LoRA file means by a name; undefined if none that FLUX has.
 * @param clipPrefix what the names of the text encoder's weights start with
 */
export function fluxLoraTarget(path: string, clipPrefix = "text_model."): LoraTarget<Component> | undefined {
  if (T5.test(path)) return { component: "text_encoder_2", modules: [] };
  const inClip = CLIP.exec(path)?.[1];
  if (inClip !== undefined) return clipTarget(flat(inClip), clipPrefix);
  const name = flat(TRANSFORMER.exec(path)?.[1] ?? path);
  const [, kind, number, rest] = BLOCK.exec(name) ?? [];
  if (kind === undefined || rest === undefined) return OUTSIDE.get(name);
  const block = BLOCKS.get(kind);
  const modules = block?.modules.get(rest);
  if (!block || !modules) return undefined;
  const prefix = `${block.name}.${Number(number)}`;
  return { component: "transformer", modules: modules.map((module) => `${prefix}.${module}`) };
}

function clipTarget(name: string, prefix: string): LoraTarget<Component> | undefined {
  const [layer, number, projection, mlp] = CLIP_LAYER.exec(name) ?? [];
  if (layer === undefined) return undefined;
  const module = mlp === undefined ? `self_attn.${projection}_proj` : `mlp.${mlp}`;
  return { component: "text_encoder", modules: [`${prefix}encoder.layers.${Number(number)}.${module}`] };
}
