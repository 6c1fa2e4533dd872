import { platform as ownPlatform } from "#platform";
import type { Keep } from "../denoising/index.js";
import { FemoError } from "../errors.js";
import { type OriginalDiT, originalDiT } from "../models/dit-original.js";
import type { FoundModel, Platform } from "../platform/platform.js";
import { Sessions } from "../runtime/sessions.js";
import {
  componentFiles,
  type FolderSource,
  type ModelComponent,
  openCheckpoint,
  openComponent,
  openModelFolder,
  pipelineFiles,
} from "../weights/index.js";
import { ditFromOriginal, type FamilyContext, familyOf } from "./families/index.js";
import type { PipelineParts } from "./family.js";
import { allClasses, type ClassNames } from "./labels.js";
import { checkPretrained, type PretrainedOptions } from "./pretrained-options.js";

/** See `DiffusionPipeline.fromPretrained`. */
export async function openPretrained(
  pathOrName: string,
  options: PretrainedOptions = {},
  platform: Platform = ownPlatform,
): Promise<PipelineParts> {
  const { dtype = "float32", threads, signal, variant, onConvert } = checkPretrained(pathOrName, options);
  signal?.throwIfAborted();
  const keep: Keep = (checkpoint) => platform.kept(checkpoint, { signal, onProgress: onConvert });
  const select = (folder: FolderSource) => pipelineFiles(folder, { variant });
  const found = await platform.findModel(pathOrName, { ...options, select });
  const build =
    found.file === undefined ? await folderBuild(found, options) : await fileBuild(found, options, platform);
  signal?.throwIfAborted();
  const engine = platform.createEngine({ threads });
  try {
    const parts = await build({ sessions: new Sessions(engine, platform.graphMemory()), dtype, keep });
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
  pathOrName: string,
  options: Pick<PretrainedOptions, "revision" | "cacheDir" | "signal" | "onProgress"> = {},
  platform: Platform = ownPlatform,
): Promise<ClassNames> {
  checkPretrained(pathOrName, options);
  options.signal?.throwIfAborted();
  const select = async (): Promise<string[]> => ["model_index.json", "transformer/config.json"];
  const { folder, name, file } = await platform.findModel(pathOrName, { ...options, select });
  if (file !== undefined) {
    const { config } = await openOriginal(folder, file, 1); // the number of heads does not matter here
    return allClasses(config.numEmbedsAdaNorm);
  }
  const opened = await openModelFolder(folder, { model: name });
  return familyOf(opened).classes(opened);
}

type Build = (context: FamilyContext) => Promise<PipelineParts>;

async function folderBuild({ folder, name }: FoundModel, options: PretrainedOptions): Promise<Build> {
  for (const [option, what] of [
    ["vae", "that has none"],
    ["heads", "that does not say them"],
  ] as const) {
    if (options[option] !== undefined) {
      throw new FemoError("E_OPTION", `${option}: only with a model file ${what}; ${name} says itself which it has`);
    }
  }
  const opened = await openModelFolder(folder, { variant: options.variant, model: name });
  return (context) => familyOf(opened).open(opened, context);
}

async function fileBuild(found: FoundModel, options: PretrainedOptions, platform: Platform): Promise<Build> {
  const { folder, file = "", name } = found;
  const model = await openOriginal(folder, file, options.heads);
  if (options.vae === undefined) {
    throw new FemoError(
      "E_OPTION",
      `${folder.name}/${file} draws latents: pass vae, the autoencoder that turns them into images, such as "stabilityai/sd-vae-ft-mse"`,
    );
  }
  const vae = await openVae(options.vae, options, platform);
  return (context) => ditFromOriginal(name, model, vae, context);
}

/**
 * The transformer of the original DiT release, such as `DiT-XL-2-256x256.pt`, or what its training script saved.
 * @throws FemoError E_FILE if the file is malformed, and as `originalDiT`
 */
async function openOriginal(folder: FolderSource, file: string, heads: number | undefined): Promise<OriginalDiT> {
  if (/\.json$/.test(file) && !/\.index\.([\w-]+\.)?json$/.test(file)) {
    throw new FemoError(
      "E_FILE",
      `${folder.name}/${file}: expected a model, found a file of one. Give the folder of the whole pipeline, the one with model_index.json.`,
    );
  }
  return originalDiT(await openCheckpoint(folder, file), heads === undefined ? {} : { heads });
}

/** An autoencoder alone, or that of a pipeline. */
async function openVae(path: string, options: PretrainedOptions, platform: Platform): Promise<ModelComponent> {
  const { variant, cacheDir, signal, onProgress } = options;
  const place = async (folder: FolderSource) => ((await folder.exists("model_index.json")) ? "vae" : ".");
  const select = async (folder: FolderSource) => {
    const component = await place(folder);
    const files = await componentFiles(folder, component, { variant });
    return [...(component === "vae" ? ["model_index.json"] : []), ...files];
  };
  const { folder } = await platform.findModel(path, { cacheDir, signal, onProgress, select });
  return openComponent(folder, await place(folder), { variant });
}
