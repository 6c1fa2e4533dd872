import { Backbone, type Keep, weightsIn } from "../../denoising/index.js";
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
import { flux } from "../../models/flux.js";
import { type FluxConfig, fluxConfigFromJson } from "../../models/flux-config.js";
import { t5ConfigFromJson, t5Encoder, withT5Names } from "../../models/t5.js";
import { type SchedulerConfig, schedulerFromConfig } from "../../samplers/index.js";
import { openTokenizer, type Tokenizer } from "../../tokenizers/index.js";
import { modelLinears, networkLinears, once } from "../../tracing/index.js";
import type { Checkpoint, LoraAdapter, ModelComponent, ModelFolder } from "../../weights/index.js";
import { LatentDecoder } from "../decoder.js";
import { type DrawingDefaults, drawingDefaults } from "../drawing-defaults.js";
import type { PipelineParts } from "../family.js";
import { ClipTextModel, T5EncoderModel } from "../text-encoders.js";
import { cachingOf } from "./caching.js";
import { checkChannels, dtypeOf, type FamilyContext, textDtypeOf } from "./context.js";
import { paperPresets } from "./flux-presets.js";
import { PromptEncoder } from "./flux-prompts.js";
import { fluxFamily, PATCH } from "./flux-requests.js";

/** All that a FLUX pipeline is made of. */
export interface FluxSource {
  readonly name: string;
  readonly config: FluxConfig;
  readonly transformer: Checkpoint;
  readonly vae: ModelComponent;
  readonly textEncoder: ModelComponent;
  readonly textEncoder2: ModelComponent;
  readonly tokenizer: Tokenizer;
  readonly tokenizer2: Tokenizer;
  readonly scheduler: SchedulerConfig;
  readonly defaults: DrawingDefaults;
  caching(levels: readonly string[], published: CachePresets): Promise<CacheFacts>;
}

/**
 * A `FluxPipeline` in diffusers' layout.
 * @throws FemoError E_CONFIG, E_FILE or E_WEIGHT if the folder is not such a pipeline in full
 */
export async function fluxFromFolder(folder: ModelFolder, context: FamilyContext): Promise<PipelineParts> {
  const { config, checkpoint } = await folder.component("transformer");
  return fluxParts(
    {
      name: folder.model,
      config: fluxConfigFromJson(config, `${folder.name}/transformer/config.json`),
      transformer: checkpoint,
      vae: await folder.component("vae"),
      textEncoder: await folder.component("text_encoder"),
      textEncoder2: await folder.component("text_encoder_2"),
      tokenizer: await openTokenizer(folder.part("tokenizer"), "."),
      tokenizer2: await openTokenizer(folder.part("tokenizer_2"), "."),
      scheduler: schedulerFromConfig(await folder.config("scheduler")),
      defaults: await drawingDefaults(folder),
      caching: (levels, published) => cachingOf(folder, levels, published),
    },
    context,
    folder.name,
  );
}

/** @param where the parts come from, for messages */
export async function fluxParts(source: FluxSource, context: FamilyContext, where: string): Promise<PipelineParts> {
  const { name, config, vae, textEncoder2 } = source;
  const { sessions, keep, lora } = context;
  const clip = clipTextConfigFromJson(source.textEncoder.config, `${where}/text_encoder/config.json`);
  const t5 = t5ConfigFromJson(textEncoder2.config, `${where}/text_encoder_2/config.json`);
  checkTokenizer("tokenizer", "clip", source.tokenizer);
  checkTokenizer("tokenizer2", "t5", source.tokenizer2);
  checkWidths(name, [
    ["pooled_projection_dim", config.pooledProjectionDim, "the text encoder's hidden_size", clip.hiddenSize],
    ["joint_attention_dim", config.jointAttentionDim, "the second text encoder's d_model", t5.dModel],
  ]);
  const decoder = new LatentDecoder(
    autoencoderKLConfigFromJson(vae.config, `${where}/vae/config.json`),
    vae.checkpoint,
    sessions,
  );
  checkChannels(name, config.inChannels / PATCH ** 2, decoder);
  const { transformer, textEncoder, notes: loraNotes } = await merged(source, lora, keep);
  const t5Weights = withT5Names(textEncoder2.checkpoint);
  const t5Linears = once(() => networkLinears(t5Encoder(t5)));
  const t5Dtype = await textDtypeOf(context, t5Weights, t5Linears);
  const model = flux(config);
  const linears = once(() => modelLinears(model));
  const { dtype, notes } = await dtypeOf(context, transformer, linears);
  const encoder = new PromptEncoder({
    tokenizer: source.tokenizer,
    textEncoder: new ClipTextModel(clip, textEncoder, sessions, ["pooled"], ONCE),
    tokenizer2: source.tokenizer2,
    textEncoder2: new T5EncoderModel(t5, await keep(weightsIn(t5Dtype.dtype, t5Weights, t5Linears)), sessions, ONCE),
  });
  const levels = cacheLevels(model);
  return {
    name,
    family: fluxFamily(config, decoder.stride, source.defaults, encoder),
    backbone: await new Backbone(model, transformer, sessions).in(dtype, keep, linears),
    decoder,
    scheduler: source.scheduler,
    notes: [...loraNotes, ...notes, ...t5Dtype.notes],
    caching: await source.caching(levels, presetsFromJson(paperPresets, defaultPresets, levels, "FLUX")),
  };
}

/** Text encoders run for a few prompts and may be freed. */
const ONCE = { once: true };

/** The weights with LoRA files merged in, and what the user should know of that. */
async function merged({ transformer, textEncoder }: FluxSource, lora: readonly LoraAdapter[], keep: Keep) {
  const bases = { transformer, textEncoder: textEncoder.checkpoint };
  if (lora.length === 0) return { ...bases, notes: [] };
  const { fluxLora } = await import("../../models/flux-lora.js");
  const { notes, ...derived } = await fluxLora(bases, lora);
  return {
    notes,
    transformer: transformer.withDerived(derived.transformer),
    textEncoder: await keep(bases.textEncoder.withDerived(derived.textEncoder)),
  };
}

/** @throws FemoError E_CONFIG if the tokenizer is of another kind of text encoder */
function checkTokenizer(part: string, kind: Tokenizer["kind"], tokenizer: Tokenizer): void {
  if (tokenizer.kind === kind) return;
  const [wanted, found] = [TITLES[kind], TITLES[tokenizer.kind]];
  throw new FemoError("E_CONFIG", `${part}: expected the tokenizer of the text encoder, ${wanted}'s, found ${found}'s`);
}

const TITLES = { clip: "CLIP", t5: "T5", bert: "BERT" } as const;

function checkWidths(name: string, widths: readonly [string, number, string, number][]): void {
  for (const [field, wanted, what, found] of widths) {
    if (wanted === found) continue;
    throw new FemoError("E_CONFIG", `${name}: transformer/config.json: ${field} is ${wanted}, but ${what} is ${found}`);
  }
}
