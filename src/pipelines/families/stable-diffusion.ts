import { Backbone } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import {
  type CacheFacts,
  type CachePresets,
  cacheLevels,
  defaultPresets,
  presetsFromJson,
} from "../../methods/index.js";
import { autoencoderKLConfigFromJson } from "../../models/autoencoder-kl.js";
import { clipTextConfigFromJson } from "../../models/clip-text.js";
import { unet } from "../../models/unet.js";
import { type UNetConfig, unetConfigFromJson } from "../../models/unet-config.js";
import { type SchedulerConfig, schedulerFromConfig } from "../../samplers/index.js";
import { openTokenizer, type Tokenizer } from "../../tokenizers/index.js";
import { modelLinears, once } from "../../tracing/index.js";
import type { DerivedTensor, ModelComponent, ModelFolder } from "../../weights/index.js";
import { LatentDecoder } from "../decoder.js";
import { type DrawingDefaults, drawingDefaults } from "../drawing-defaults.js";
import { LatentEncoder } from "../encoder.js";
import type { PipelineParts } from "../family.js";
import { cachingOf } from "./caching.js";
import { checkChannels, dtypeOf, type FamilyContext } from "./context.js";
import { unetPresets } from "./stable-diffusion-presets.js";
import { type ClipPart, ClipPromptEncoder } from "./stable-diffusion-prompts.js";
import { checkText, stableDiffusionFamily } from "./stable-diffusion-requests.js";

/** All that such a pipeline is made of. */
export interface DiffusionSource {
  readonly name: string;
  readonly unet: ModelComponent;
  readonly vae: ModelComponent;
  readonly textEncoder: ModelComponent | undefined;
  readonly textEncoder2: ModelComponent | undefined;
  readonly tokenizer: Tokenizer | undefined;
  readonly tokenizer2: Tokenizer | undefined;
  readonly scheduler: SchedulerConfig;
  readonly forceZerosForEmptyPrompt: boolean;
  readonly defaults: DrawingDefaults;
  caching(levels: readonly string[], published: CachePresets): Promise<CacheFacts>;
}

/**
 * A `StableDiffusionPipeline`, `StableDiffusionXLPipeline` or one of their kin in diffusers' layout.
 * @throws FemoError E_CONFIG, E_FILE or E_WEIGHT if the folder is not such a pipeline in full
 */
export async function stableDiffusionFromFolder(folder: ModelFolder, context: FamilyContext): Promise<PipelineParts> {
  const has = (name: string): boolean => Boolean(folder.components[name]);
  const component = async (name: string) => (has(name) ? folder.component(name) : undefined);
  const tokenizer = async (name: string) => (has(name) ? openTokenizer(folder.part(name), ".") : undefined);
  return diffusionParts(
    {
      name: folder.model,
      unet: await folder.component("unet"),
      vae: await folder.component("vae"),
      textEncoder: await component("text_encoder"),
      textEncoder2: await component("text_encoder_2"),
      tokenizer: await tokenizer("tokenizer"),
      tokenizer2: await tokenizer("tokenizer_2"),
      scheduler: schedulerFromConfig(schedulerConfig(folder, await folder.config("scheduler"))),
      forceZerosForEmptyPrompt: isXl(folder) && folder.options.force_zeros_for_empty_prompt !== false,
      defaults: await drawingDefaults(folder),
      caching: (levels, published) => cachingOf(folder, levels, published),
    },
    context,
    folder.name,
  );
}

const isXl = ({ className }: ModelFolder): boolean => className.startsWith("StableDiffusionXL");

/** The pipelines of Stable Diffusion 1 and 2 repair schedulers of early files: an offset of 1, and no clipping. */
const schedulerConfig = (folder: ModelFolder, config: unknown): unknown =>
  isXl(folder) || typeof config !== "object" || config === null
    ? config
    : { ...config, steps_offset: 1, ...("clip_sample" in config && { clip_sample: false }) };

const NO_LORA = { notes: [], unet: [], textEncoder: [], textEncoder2: [] };

/** The parts with LoRA files merged in, what is computed of text encoders kept, and what the user should know of that. */
async function merged(source: DiffusionSource, { lora, keep }: FamilyContext) {
  const { unet, textEncoder, textEncoder2 } = source;
  const kept = async (of: ModelComponent | undefined, changed: readonly DerivedTensor[]) =>
    of && { ...of, checkpoint: await keep(of.checkpoint.withDerived(changed)) };
  const bases = { unet: unet.checkpoint, textEncoder: textEncoder?.checkpoint, textEncoder2: textEncoder2?.checkpoint };
  const { notes, ...derived } =
    lora.length > 0
      ? await (await import("../../models/stable-diffusion-lora.js")).stableDiffusionLora(bases, lora)
      : NO_LORA;
  return {
    notes,
    unet: { ...unet, checkpoint: unet.checkpoint.withDerived(derived.unet) },
    textEncoder: await kept(textEncoder, derived.textEncoder),
    textEncoder2: await kept(textEncoder2, derived.textEncoder2),
  };
}

/** @param where the parts come from, for messages */
export async function diffusionParts(
  source: DiffusionSource,
  context: FamilyContext,
  where: string,
): Promise<PipelineParts> {
  const { name, vae } = source;
  const { sessions, keep } = context;
  const { unet: network, textEncoder, textEncoder2, notes: loraNotes } = await merged(source, context);
  const clip = (
    part: "text_encoder" | "text_encoder_2",
    of: ModelComponent | undefined,
    tokenizer: Tokenizer | undefined,
  ) => of && clipPart(`${where}/${part}/config.json`, of, tokenizer);
  const first = clip("text_encoder", textEncoder, source.tokenizer);
  const second = clip("text_encoder_2", textEncoder2, source.tokenizer2);
  const config = told(unetConfigFromJson(network.config, `${where}/unet/config.json`), second?.config.projectionDim);
  const encoder = new ClipPromptEncoder({ ...(first && { first }), ...(second && { second }) }, sessions);
  checkText(name, config, encoder, second?.config.projectionDim);
  const vaeConfig = autoencoderKLConfigFromJson(vae.config, `${where}/vae/config.json`);
  const decoder = new LatentDecoder(vaeConfig, vae.checkpoint, sessions);
  checkChannels(name, config.outChannels, decoder);
  const model = unet(config);
  const linears = once(() => modelLinears(model));
  const { dtype, notes } = await dtypeOf(context, network.checkpoint, linears);
  const { forceZerosForEmptyPrompt, defaults: own } = source;
  const levels = cacheLevels(model);
  return {
    name,
    family: stableDiffusionFamily({ config, stride: decoder.stride, forceZerosForEmptyPrompt, own }, encoder),
    backbone: await new Backbone(model, network.checkpoint, sessions).in(dtype, keep, linears),
    decoder,
    encoder: new LatentEncoder(vaeConfig, vae.checkpoint, sessions),
    scheduler: source.scheduler,
    notes: [...loraNotes, ...notes],
    caching: await source.caching(levels, presetsFromJson(unetPresets, defaultPresets, levels, "Stable Diffusion")),
  };
}

/** The width of pooled text tells how many numbers XL takes beside it. */
function told({ addition, ...config }: UNetConfig, pooledProjectionDim: number | undefined): UNetConfig {
  if (!addition || pooledProjectionDim === undefined) return { ...config, addition };
  const { timeEmbedDim } = addition;
  const timeIds = addition.timeIds + (addition.pooledProjectionDim - pooledProjectionDim) / timeEmbedDim;
  return {
    ...config,
    addition: timeIds === 5 || timeIds === 6 ? { timeEmbedDim, timeIds, pooledProjectionDim } : addition,
  };
}

function clipPart(file: string, { config, checkpoint }: ModelComponent, tokenizer: Tokenizer | undefined): ClipPart {
  if (tokenizer?.kind === "clip") return { tokenizer, config: clipTextConfigFromJson(config, file), checkpoint };
  throw new FemoError(
    "E_CONFIG",
    `${file}: expected a tokenizer of CLIP beside it, found ${tokenizer?.kind ?? "none"}`,
  );
}
