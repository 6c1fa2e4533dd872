import { existsSync, statSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { FemoError } from "../errors.js";
import { ditConfigFromJson } from "../models/dit.js";
import type { OriginalDiT } from "../models/dit-original.js";
import { createNodeEngine } from "../platform/node/engine.js";
import type { Engine } from "../runtime/engine.js";
import {
  componentFiles,
  type DownloadOptions,
  type ModelId,
  openHubModel,
  parseModelId,
  pipelineFiles,
} from "../weights/hub/index.js";
import { type FolderSource, type ModelComponent, openComponent, openModelFolder } from "../weights/index.js";
import { nodeFolder } from "../weights/node-folder.js";
import { quantizedCheckpoint } from "../weights/quantized-node.js";
import { quote } from "../weights/text.js";
import { DiffusionPipeline, type PretrainedOptions } from "./diffusion-pipeline.js";
import type { Quantize } from "./dtype.js";
import { embeddedFolder, embeddedModelAt, embeddedModels } from "./embedded-node.js";
import { allClasses, type ClassNames, labelNames } from "./labels.js";
import { openOriginalDiT } from "./original-node.js";
import { checkPretrained } from "./pretrained-options.js";

/** How to reach the Hub, where that is not as the process's environment says. */
export type HubAccess = Pick<DownloadOptions, "env" | "retry">;

/** See `DiffusionPipeline.fromPretrained`. */
export async function openPretrained(
  pathOrName: string,
  options: PretrainedOptions = {},
  access: HubAccess = {},
): Promise<DiffusionPipeline> {
  const { dtype, threads, signal } = checkPretrained(pathOrName, options);
  signal?.throwIfAborted();
  const quantize: Quantize | undefined =
    dtype === "int8" ? (checkpoint, names) => quantizedCheckpoint(checkpoint, names, { signal }) : undefined;
  const path = withoutIndex(pathOrName);
  const build = isFile(path) ? await originalDiTAt(path, options, access) : await pipelineAt(path, options, access);
  signal?.throwIfAborted();
  const engine = createNodeEngine(threads === undefined ? {} : { threads });
  try {
    const pipeline = await build(engine, quantize);
    signal?.throwIfAborted();
    return pipeline;
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
  access: HubAccess = {},
): Promise<ClassNames> {
  checkPretrained(pathOrName, options);
  options.signal?.throwIfAborted();
  const path = withoutIndex(pathOrName);
  if (isFile(path)) {
    const { config } = await openFile(path, 1); // the number of heads does not matter here
    return allClasses(config.numEmbedsAdaNorm);
  }
  const select = async (): Promise<string[]> => ["model_index.json", "transformer/config.json"];
  const { folder, model } = await findModel(path, options, { ...access, select });
  const index = await openModelFolder(folder, { model });
  const config = ditConfigFromJson(await index.config("transformer"), `${folder.name}/transformer/config.json`);
  return allClasses(config.numEmbedsAdaNorm, labelNames(index.id2label));
}

type Build = (engine: Engine, quantize: Quantize | undefined) => Promise<DiffusionPipeline>;

async function pipelineAt(path: string, options: PretrainedOptions, access: HubAccess): Promise<Build> {
  for (const [name, what] of [
    ["vae", "that has none"],
    ["heads", "that does not say them"],
  ] as const) {
    if (options[name] !== undefined) {
      throw new FemoError("E_OPTION", `${name}: only with a model file ${what}; ${path} says itself which it has`);
    }
  }
  const { variant } = options;
  const select = (folder: FolderSource) => pipelineFiles(folder, { variant });
  const { folder, model } = await findModel(path, options, { ...access, select });
  const opened = await openModelFolder(folder, { variant, model });
  return (engine, quantize) => DiffusionPipeline.fromFolder(opened, engine, quantize);
}

async function originalDiTAt(path: string, options: PretrainedOptions, access: HubAccess): Promise<Build> {
  checkNoRevision(path, options);
  const model = await openFile(path, options.heads);
  if (options.vae === undefined) {
    throw new FemoError(
      "E_OPTION",
      `${path} draws latents: pass vae, the autoencoder that turns them into images, such as "stabilityai/sd-vae-ft-mse"`,
    );
  }
  const vae = await openVae(options.vae, options, access);
  return (engine, quantize) => DiffusionPipeline.fromOriginalDiT(basename(path), model, vae, engine, quantize);
}

async function openFile(path: string, heads: number | undefined): Promise<OriginalDiT> {
  if (/\.json$/.test(path) && !/\.index\.([\w-]+\.)?json$/.test(path)) {
    throw new FemoError(
      "E_FILE",
      `${path}: expected a model, found a file of one. Give the folder of the whole pipeline, the one with model_index.json.`,
    );
  }
  return openOriginalDiT(path, heads === undefined ? {} : { heads });
}

/** An autoencoder alone, or that of a pipeline. */
async function openVae(path: string, options: PretrainedOptions, access: HubAccess): Promise<ModelComponent> {
  const { variant } = options;
  const place = async (folder: FolderSource) => ((await folder.exists("model_index.json")) ? "vae" : ".");
  const select = async (folder: FolderSource) => {
    const component = await place(folder);
    const files = await componentFiles(folder, component, { variant });
    return [...(component === "vae" ? ["model_index.json"] : []), ...files];
  };
  const { folder } = await findModel(withoutIndex(path), options, { ...access, select });
  return openComponent(folder, await place(folder), { variant });
}

/** Where a model is, and what reports call it. */
interface Place {
  readonly folder: FolderSource;
  readonly model: string;
}

/** An embedded model before a folder, and a folder before a model on the Hub. */
async function findModel(
  path: string,
  options: Pick<PretrainedOptions, "revision" | "cacheDir" | "signal" | "onProgress">,
  download: DownloadOptions,
): Promise<Place> {
  const embedded = embeddedModels().includes(path) ? path : embeddedModelAt(path);
  if (embedded !== undefined || existsSync(path)) {
    checkNoRevision(path, options);
    const name = embedded ?? basename(resolve(path));
    return { folder: nodeFolder(embedded === path ? embeddedFolder(path) : path), model: name || path };
  }
  const { cacheDir, signal, onProgress } = options;
  const id = hubId(path, options.revision);
  if (id) return { folder: await openHubModel(id, { ...download, cacheDir, signal, onProgress }), model: id.repo };
  const known = embeddedModels().map(quote).join(", ");
  throw new FemoError(
    "E_FILE",
    `${path}: expected ${known && `an embedded model (${known}), `}a folder in diffusers' layout, a file of the original ` +
      'DiT release, or a model on the Hub such as "facebook/DiT-XL-2-256" or "owner/name@revision"; found none of them.',
  );
}

/** A model on the Hub at a revision, which the text or the option may say. */
function hubId(text: string, revision: string | undefined): ModelId | undefined {
  const id = parseModelId(text);
  if (!id || revision === undefined) return id;
  const asked = parseModelId(`${id.repo}@${revision}`);
  if (!asked) {
    throw new FemoError("E_OPTION", `revision: expected a branch, tag or commit, found ${quote(revision)}`);
  }
  if (text.includes("@") && id.revision !== revision) {
    throw new FemoError(
      "E_OPTION",
      `revision: found ${quote(revision)}, but the model is given as ${quote(text)}. Leave one of them out`,
    );
  }
  return asked;
}

function checkNoRevision(path: string, { revision }: Pick<PretrainedOptions, "revision">): void {
  if (revision === undefined) return;
  throw new FemoError("E_OPTION", `revision: only of a model on the Hub; ${path} is on this machine`);
}

/** The folder of a pipeline instead of the file that makes it one. */
const withoutIndex = (path: string): string =>
  basename(path) === "model_index.json" && isFile(path) ? dirname(path) : path;

const isFile = (path: string): boolean => existsSync(path) && statSync(path).isFile();
