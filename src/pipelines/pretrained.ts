import { platform as ownPlatform } from "#platform";
import type { Keep } from "../denoising/index.js";
import { FemoError } from "../errors.js";
import type { FoundModel, ModelPlace, Platform } from "../platform/platform.js";
import { fewBitsRate, productRate } from "../runtime/product-rate.js";
import { Sessions } from "../runtime/sessions.js";
import { once } from "../tracing/index.js";
import {
  type Checkpoint,
  type FolderSource,
  type LoraAdapter,
  openCheckpoint,
  openModelFolder,
  pipelineFiles,
} from "../weights/index.js";
import { type FamilyContext, familyOf } from "./families/index.js";
import type { PipelineParts } from "./family.js";
import type { ClassNames } from "./labels.js";
import { checkPretrained, type PretrainedOptions } from "./pretrained-options.js";

/** See `DiffusionPipeline.fromPretrained`. */
export async function openPretrained(
  place: ModelPlace,
  options: PretrainedOptions = {},
  platform: Platform = ownPlatform,
): Promise<PipelineParts> {
  const { dtype, threads, device, signal, variant, onConvert } = checkPretrained(place, options);
  signal?.throwIfAborted();
  const keep: Keep = (checkpoint) => platform.kept(checkpoint, { signal, onProgress: onConvert });
  const select = (folder: FolderSource) => pipelineFiles(folder, { variant });
  const found = await platform.findModel(place, { ...options, select });
  const build =
    found.file === undefined ? await folderBuild(found, options) : await fileBuild(found, options, platform);
  const lora = await openLora(options, platform);
  signal?.throwIfAborted();
  const engine = await platform.createEngine({ threads, device });
  try {
    const graphMemory = platform.graphMemory();
    const sessions = new Sessions(engine, graphMemory);
    const int8TimesAsFast = once(async () => {
      const float32 = await productRate(engine);
      return ((await fewBitsRate(engine, 8)) ?? 0) / float32;
    });
    const parts = await build({ sessions, dtype, maxWeightBytes: 3 * graphMemory, int8TimesAsFast, keep, lora });
    signal?.throwIfAborted();
    return parts;
  } catch (error) {
    await engine.close();
    throw error;
  }
}

/**
 * The classes of a model, from its configs: weights are neither downloaded nor read.
 * @throws FemoError as `DiffusionPipeline.fromPretrained`
 */
export async function pretrainedClasses(
  place: ModelPlace,
  options: Pick<PretrainedOptions, "revision" | "cacheDir" | "token" | "signal" | "onProgress"> = {},
  platform: Platform = ownPlatform,
): Promise<ClassNames> {
  checkPretrained(place, options);
  options.signal?.throwIfAborted();
  const select = async (): Promise<string[]> => ["model_index.json", "transformer/config.json"];
  const { folder, name, file } = await platform.findModel(place, { ...options, select });
  if (file !== undefined) {
    return (await singleFiles()).fileClasses(await openModelFile(folder, file));
  }
  const opened = await openModelFolder(folder, { model: name });
  return familyOf(opened).classes(opened);
}

/** What knows the names in single files, and the parts that they lack, is loaded when there is one. */
const singleFiles = () => import("./families/single-files.js");

type Build = (context: FamilyContext) => Promise<PipelineParts>;

/** The options that only some models take, and whose those are. */
const FILE_OPTIONS = [
  ["vae", "that has none"],
  ["heads", "that does not say them"],
  ["textEncoder", "that has none"],
  ["textEncoder2", "that has none"],
  ["tokenizer", "of FLUX"],
  ["tokenizer2", "of FLUX"],
] as const satisfies readonly (readonly [keyof PretrainedOptions, string])[];

async function folderBuild({ folder, name }: FoundModel, options: PretrainedOptions): Promise<Build> {
  for (const [option, what] of FILE_OPTIONS) {
    if (options[option] !== undefined) {
      throw new FemoError("E_OPTION", `${option}: only with a model file ${what}; ${name} says itself which it has`);
    }
  }
  const opened = await openModelFolder(folder, { variant: options.variant, model: name });
  return (context) => familyOf(opened).open(opened, context);
}

async function fileBuild(found: FoundModel, options: PretrainedOptions, platform: Platform): Promise<Build> {
  const { folder, file = "", name } = found;
  const checkpoint = await openModelFile(folder, file);
  const { fileFamilyOf, PartFiles } = await singleFiles();
  const family = fileFamilyOf(checkpoint, options.heads);
  for (const [option] of FILE_OPTIONS) {
    if (options[option] === undefined || family.options.includes(option)) continue;
    const those = family.options.join(", ");
    throw new FemoError("E_OPTION", `${option}: not of the model in ${folder.name}/${file}, which takes ${those}`);
  }
  return (context) => family.open(name, checkpoint, new PartFiles(options, platform), context);
}

/** @throws FemoError E_FILE if the file is malformed, or no file of weights */
async function openModelFile(folder: FolderSource, file: string): Promise<Checkpoint> {
  if (/\.json$/.test(file) && !/\.index\.([\w-]+\.)?json$/.test(file)) {
    throw new FemoError(
      "E_FILE",
      `${folder.name}/${file}: expected a model, found a file of one. Give the folder of the whole pipeline, the one with model_index.json.`,
    );
  }
  return openCheckpoint(folder, file);
}

/** What diffusers calls a LoRA file in a repository. */
const LORA_FILE = "pytorch_lora_weights.safetensors";

/** @throws FemoError E_FILE, E_WEIGHT if there is no such file; what `Platform.findModel` throws */
async function openLora(options: PretrainedOptions, platform: Platform): Promise<LoraAdapter[]> {
  const { lora = [], cacheDir, token, signal, onProgress } = options;
  const adapters: LoraAdapter[] = [];
  for (const one of [lora].flat()) {
    const { path, weight = 1 } = typeof one === "string" ? { path: one } : one;
    const select = async (): Promise<string[]> => [LORA_FILE];
    const { folder, file = LORA_FILE } = await platform.findModel(path, {
      cacheDir,
      token,
      signal,
      onProgress,
      select,
    });
    adapters.push({ checkpoint: await openCheckpoint(folder, file), weight });
  }
  return adapters;
}
