import { Backbone, guidanceRows, type Keep, weightsIn } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import {
  type CacheFacts,
  type CachePresets,
  cacheLevels,
  defaultPresets,
  presetsFromJson,
} from "../../methods/index.js";
import { autoencoderKLConfigFromJson } from "../../models/autoencoder-kl.js";
import { isOriginalAutoencoderKL, originalAutoencoderKL } from "../../models/autoencoder-kl-original.js";
import { clipTextConfigFromJson } from "../../models/clip-text.js";
import { flux, fluxSizes } from "../../models/flux.js";
import { type FluxConfig, fluxConfigFromJson } from "../../models/flux-config.js";
import { fluxLora } from "../../models/flux-lora.js";
import { fluxSchedulers, originalFlux } from "../../models/flux-original.js";
import { t5ConfigFromJson, t5Encoder, withT5Names } from "../../models/t5.js";
import { isOriginalClipText, isOriginalT5, originalClipText, originalT5 } from "../../models/text-encoders-original.js";
import { type SchedulerConfig, schedulerFromConfig } from "../../samplers/index.js";
import { openTokenizer, type Tokenizer } from "../../tokenizers/index.js";
import { modelLinears, networkLinears } from "../../tracing/index.js";
import type { Checkpoint, LoraAdapter, ModelComponent, ModelFolder } from "../../weights/index.js";
import { LatentDecoder } from "../decoder.js";
import { type DrawingDefaults, drawingDefaults } from "../drawing-defaults.js";
import type { Condition, Family, PipelineParts, Shown, Subject } from "../family.js";
import { checkInteger } from "../option-types.js";
import type { PartFiles } from "../part-files.js";
import { PromptEncoder, type PromptTexts } from "../prompts.js";
import { type SubjectOptions, subjectTypes } from "../subject-options.js";
import { ClipTextModel, T5EncoderModel } from "../text-encoders.js";
import { cachingOf, nothingMeasured } from "./caching.js";
import { checkChannels, dtypeOf, type FamilyContext } from "./context.js";

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

const WORDS = { vae: "autoencoder", textEncoder: "text encoder of CLIP", textEncoder2: "text encoder of T5" } as const;

/** Files that have what a FLUX file may lack, by option. */
export const fluxPartOptions = ["vae", "textEncoder", "textEncoder2", "tokenizer", "tokenizer2"] as const;

/**
 * A transformer of the original release's names, in whichever format, with the other parts in files or folders of their
 * own unless it has them too.
 * @throws FemoError E_OPTION if a part is missing, and as those that open them
 */
export async function fluxFromFile(
  name: string,
  file: Checkpoint,
  parts: PartFiles,
  context: FamilyContext,
): Promise<PipelineParts> {
  const { config, checkpoint, scheduler } = await originalFlux(file);
  const part = async (
    option: "vae" | "textEncoder" | "textEncoder2",
    component: string,
    isThere: (checkpoint: Checkpoint) => boolean,
    original: (checkpoint: Checkpoint) => ModelComponent | Promise<ModelComponent>,
  ): Promise<ModelComponent> => {
    const found = (await parts.component(option, component, original)) ?? (isThere(file) && (await original(file)));
    if (found) return found;
    throw new FemoError(
      "E_OPTION",
      `${option}: expected the ${WORDS[option]}, which ${file.name} does not have: a file, a folder or a repository ` +
        'on the Hub, of the part alone or of a pipeline such as "black-forest-labs/FLUX.1-schnell"; found nothing',
    );
  };
  return fluxParts(
    {
      ...{ name, config, transformer: checkpoint },
      vae: await part("vae", "vae", isOriginalAutoencoderKL, originalAutoencoderKL),
      textEncoder: await part("textEncoder", "text_encoder", isOriginalClipText, originalClipText),
      textEncoder2: await part("textEncoder2", "text_encoder_2", isOriginalT5, originalT5),
      tokenizer: await parts.tokenizer("tokenizer", "tokenizer"),
      tokenizer2: await parts.tokenizer("tokenizer2", "tokenizer_2"),
      scheduler: schedulerFromConfig(fluxSchedulers[scheduler]),
      defaults: {},
      caching: async (levels, published) => nothingMeasured(levels, published),
    },
    context,
    name,
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
  const t5Linears = networkLinears(t5Encoder(t5));
  const t5Dtype = dtypeOf(context, t5Weights, t5Linears);
  const model = flux(config);
  const { dtype, notes } = dtypeOf(context, transformer, modelLinears(model));
  const once = { once: true };
  const encoder = new PromptEncoder({
    tokenizer: source.tokenizer,
    textEncoder: new ClipTextModel(clip, textEncoder, sessions, ["pooled"], once),
    tokenizer2: source.tokenizer2,
    textEncoder2: new T5EncoderModel(t5, await keep(weightsIn(t5Dtype.dtype, t5Weights, t5Linears)), sessions, once),
  });
  const levels = cacheLevels(model);
  return {
    name,
    family: promptFamily(config, decoder.stride, source.defaults, encoder),
    backbone: await new Backbone(model, transformer, sessions).in(dtype, keep),
    decoder,
    scheduler: source.scheduler,
    notes: [...loraNotes, ...notes, ...t5Dtype.notes],
    caching: await source.caching(levels, presetsFromJson(paperPresets, defaultPresets, levels, "FLUX")),
  };
}

/** The weights with LoRA files merged in, and what the user should know of that. */
async function merged({ transformer, textEncoder }: FluxSource, lora: readonly LoraAdapter[], keep: Keep) {
  const bases = { transformer, textEncoder: textEncoder.checkpoint };
  if (lora.length === 0) return { ...bases, notes: [] };
  const { notes, ...derived } = await fluxLora(bases, lora);
  return {
    notes,
    transformer: transformer.withDerived(derived.transformer),
    textEncoder: await keep(bases.textEncoder.withDerived(derived.textEncoder)),
  };
}

/** Latent pixels along a side of a token. */
const PATCH = 2;

/** @throws FemoError E_CONFIG if the tokenizer is of another kind of text encoder */
function checkTokenizer(part: string, kind: Tokenizer["kind"], tokenizer: Tokenizer): void {
  if (tokenizer.kind === kind) return;
  const [wanted, found] = [TITLES[kind], TITLES[tokenizer.kind]];
  throw new FemoError("E_CONFIG", `${part}: expected the tokenizer of the text encoder, ${wanted}'s, found ${found}'s`);
}

const TITLES = { clip: "CLIP", t5: "T5" } as const;

function checkWidths(name: string, widths: readonly [string, number, string, number][]): void {
  for (const [field, wanted, what, found] of widths) {
    if (wanted === found) continue;
    throw new FemoError("E_CONFIG", `${name}: transformer/config.json: ${field} is ${wanted}, but ${what} is ${found}`);
  }
}

/** What the FEMO paper sets on FLUX (femo.md section 2), and what others published for it. */
const paperPresets = {
  fora: { firstEnhance: 3 },
  taylorSeer: { order: 1, firstEnhance: 3 },
  newton: { order: 1, firstEnhance: 3 },
  hiCache: { firstEnhance: 3 },
  foca: { firstEnhance: 3 },
  femo: { order: 1, beta: 0.325, firstEnhance: 3 },
  adaptedFemo: { order: 1, beta: 0.325, delta: 0.125, gamma: 0.01, firstEnhance: 3 },
  toca: { ratio: 0.1, ratioSchedule: "flux", intervalSchedule: "constant" },
  duca: { ratioSchedule: "flux", intervalSchedule: "constant" },
  teaCache: { coefficients: "flux" },
  magCache: { ratios: "flux" },
};

/** Prompts for studies, where the model says none. */
const examples = [
  "a fox in the snow",
  "a lighthouse on a cliff at sunset, oil painting",
  "a bowl of lemons on a blue table",
  "portrait of an old sailor, black and white photograph",
  "a red bicycle in front of a bookshop",
  "a small robot that waters a plant",
  "mountains behind a lake in the morning fog",
  "a hand-drawn map of an island",
  "a cat asleep on a pile of books",
  "a street in the rain at night, neon signs",
];

/** diffusers' defaults of `FluxPipeline`. */
const diffusersDefaults = {
  ...{ numInferenceSteps: 28, guidanceScale: 3.5, trueCfgScale: 1, maxSequenceLength: 512 },
  ...{ height: 1024, width: 1024, examples },
};
const MAX_SEQUENCE_LENGTH = 512;
/** The longest side, in pixels. */
const MAX_SIDE = 8192;

/** What the transformer is told: a prompt, and the guidance that it takes as an input. */
interface FluxCondition extends PromptTexts {
  readonly guidance: number;
}

/** Requests give prompts. @param stride pixels of the image along a side of a latent pixel */
function promptFamily(
  { guidanceEmbeds, pooledProjectionDim, jointAttentionDim }: FluxConfig,
  stride: number,
  own: DrawingDefaults,
  encoder: PromptEncoder,
): Family {
  const defaults = { ...diffusersDefaults, ...(!guidanceEmbeds && { guidanceScale: 1 }), ...own };
  const side = PATCH * stride;
  const { classLabels: _, ...options } = subjectTypes;

  return {
    subjectOption: "prompt",
    options,
    examples: defaults.examples,
    defaults,
    classes: new Map(),

    drawing(request) {
      const { height = defaults.height, width = defaults.width, guidanceScale } = request;
      const { maxSequenceLength = defaults.maxSequenceLength, trueCfgScale = defaults.trueCfgScale } = request;
      checkSide("height", height, side);
      checkSide("width", width, side);
      checkInteger("maxSequenceLength", maxSequenceLength, 1, MAX_SEQUENCE_LENGTH);
      if (!Number.isFinite(trueCfgScale)) {
        throw new FemoError("E_OPTION", `trueCfgScale: expected a finite number, found ${trueCfgScale}`);
      }
      const texts = promptTexts(request, defaults.negativePrompt);
      const guided = trueCfgScale > 1 && texts.some(({ negativePrompt }) => negativePrompt !== undefined);
      const guidance = guidanceEmbeds ? (guidanceScale ?? defaults.guidanceScale) : 0;
      const conditionOf = interned((prompt: string, prompt2: string): FluxCondition => {
        return { prompt, prompt2, maxSequenceLength, guidance };
      });
      const [rows, columns] = [height / side, width / side];
      return {
        subjects: texts.map((about): Subject => {
          const { prompt, prompt2 = prompt, negativePrompt = "", negativePrompt2 = negativePrompt } = about;
          const shown = { title: prompt, prompt, ...given(about, ["prompt2"]) };
          if (!guided) return { rows: [{ condition: conditionOf(prompt, prompt2), weight: 1 }], about: shown };
          return {
            rows: guidanceRows<Condition>(
              trueCfgScale,
              conditionOf(prompt, prompt2),
              conditionOf(negativePrompt, negativePrompt2),
            ),
            about: { ...shown, ...given(about, ["negativePrompt", "negativePrompt2"]) },
          };
        }),
        sizes: { [fluxSizes.rows]: rows, [fluxSizes.columns]: columns, [fluxSizes.text]: maxSequenceLength },
        sampling: { imageTokens: rows * columns, timestepSpacing: "trailing" },
        settings: { trueCfgScale: guided ? trueCfgScale : 1, height, width, maxSequenceLength },
        notes: notesOf(request, guided, guidanceEmbeds),
      };
    },

    async encode(conditions, signal) {
      const texts = conditions as readonly FluxCondition[];
      const { encoded, notes } = await encoder.encode(texts, signal);
      const length = texts[0]?.maxSequenceLength ?? 0;
      const table = (dims: readonly number[], rows: readonly Float32Array[]) => ({
        dtype: "float32" as const,
        dims: [rows.length, ...dims],
        data: joined(rows),
      });
      return {
        notes,
        feeds: {
          pooled_projection: table(
            [pooledProjectionDim],
            encoded.map(({ pooled }) => pooled),
          ),
          encoder_hidden_states: table(
            [length, jointAttentionDim],
            encoded.map(({ states }) => states),
          ),
          ...(guidanceEmbeds && {
            guidance: table(
              [],
              texts.map(({ guidance }) => Float32Array.of(guidance)),
            ),
          }),
        },
      };
    },
  };
}

function checkSide(name: string, pixels: number, multiple: number): void {
  if (Number.isInteger(pixels) && pixels >= multiple && pixels <= MAX_SIDE && pixels % multiple === 0) return;
  const near = Math.min(MAX_SIDE, Math.max(multiple, Math.round(pixels / multiple) * multiple));
  throw new FemoError(
    "E_OPTION",
    `${name}: expected a multiple of ${multiple} from ${multiple} to ${MAX_SIDE} pixels, found ${pixels}. The nearest is ${Number.isFinite(near) ? near : multiple}.`,
  );
}

type Texts = Shown & { readonly prompt: string };

/** What each image is to show; a text beside the prompts is for all of them, or there are as many. */
function promptTexts(request: SubjectOptions, ownNegative: string | undefined): readonly Omit<Texts, "title">[] {
  const prompts = [request.prompt as string | readonly string[]].flat();
  const of = (name: "prompt2" | "negativePrompt" | "negativePrompt2", otherwise?: string) => {
    const texts = [request[name] ?? otherwise ?? []].flat();
    if (typeof request[name] === "object" && texts.length !== prompts.length) {
      throw new FemoError(
        "E_OPTION",
        `${name}: expected one text, or one for each of the ${prompts.length} prompts, found a list of ${texts.length}`,
      );
    }
    return (i: number): string | undefined => texts[texts.length > 1 ? i : 0];
  };
  const [second, negative, negative2] = [of("prompt2"), of("negativePrompt", ownNegative), of("negativePrompt2")];
  return prompts.map((prompt, i) => {
    const [prompt2, negativePrompt, negativePrompt2] = [second(i), negative(i), negative2(i)];
    return {
      prompt,
      ...(prompt2 !== undefined && { prompt2 }),
      ...(negativePrompt !== undefined && { negativePrompt }),
      ...(negativePrompt2 !== undefined && { negativePrompt2 }),
    };
  });
}

/** Those of the fields that are there. */
const given = <K extends keyof Texts>(texts: Omit<Texts, "title">, names: readonly K[]): Partial<Pick<Texts, K>> =>
  Object.fromEntries(Object.entries(texts).filter(([name]) => names.includes(name as K))) as Partial<Pick<Texts, K>>;

/** Equal arguments give the same value. */
function interned<A extends readonly string[], T>(make: (...texts: A) => T): (...texts: A) => T {
  const made = new Map<string, T>();
  return (...texts) => {
    const key = JSON.stringify(texts);
    const value = made.get(key) ?? make(...texts);
    made.set(key, value);
    return value;
  };
}

/** What was asked for and has no effect. */
function notesOf(request: Parameters<Family["drawing"]>[0], guided: boolean, guidanceEmbeds: boolean): string[] {
  const { guidanceScale, trueCfgScale = 1, negativePrompt } = request;
  const notes = [];
  if (guidanceScale !== undefined && !guidanceEmbeds) {
    notes.push(
      "guidanceScale has no effect: this model was not distilled to take it. It is guided by trueCfgScale and negativePrompt.",
    );
  }
  if (trueCfgScale > 1 && !guided) notes.push('trueCfgScale has no effect without a negativePrompt, which may be "".');
  if (negativePrompt !== undefined && !guided) notes.push("negativePrompt has no effect: trueCfgScale is not above 1.");
  return notes;
}

function joined(rows: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(rows.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const row of rows) {
    all.set(row, at);
    at += row.length;
  }
  return all;
}
