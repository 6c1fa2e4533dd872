import { existsSync, readdirSync, statSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { FemoError } from "../errors.js";
import type { Engine } from "../runtime/engine.js";
import { createNodeEngine } from "../runtime/node.js";
import { componentFiles, type DownloadOptions, openHubModel, parseModelId } from "../weights/hub/index.js";
import { type FolderSource, type ModelComponent, openComponent, openModelFolder } from "../weights/index.js";
import { nodeFolder } from "../weights/node-folder.js";
import { quantizedCheckpoint } from "../weights/quantized-node.js";
import { DiffusionPipeline, type PretrainedOptions } from "./diffusion-pipeline.js";
import { checkDtype, type Quantize } from "./dtype.js";
import { openOriginalDiT } from "./original-node.js";

/** The models that come with the package, each a folder in diffusers' layout. */
const MODELS = fileURLToPath(new URL("../../models/", import.meta.url));

/** Names of the embedded models. */
export function embeddedModels(): string[] {
  return readdirSync(MODELS, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(`${MODELS}${entry.name}/model_index.json`))
    .map((entry) => entry.name);
}

/** See `DiffusionPipeline.fromPretrained`. */
export async function openPretrained(
  pathOrName: string,
  options: PretrainedOptions & DownloadOptions = {},
): Promise<DiffusionPipeline> {
  const quantize: Quantize | undefined =
    checkDtype(options.dtype === undefined ? "float32" : options.dtype) === "int8"
      ? (checkpoint, names) => quantizedCheckpoint(checkpoint, names, { signal: options.signal })
      : undefined;
  const build = isFile(pathOrName) ? await originalDiTAt(pathOrName, options) : await folderAt(pathOrName, options);
  const engine = createNodeEngine(options);
  try {
    return await build(engine, quantize);
  } catch (error) {
    await engine.close();
    throw error;
  }
}

type Build = (engine: Engine, quantize: Quantize | undefined) => Promise<DiffusionPipeline>;

async function folderAt(pathOrName: string, options: PretrainedOptions & DownloadOptions): Promise<Build> {
  if (options.vae !== undefined) {
    throw new FemoError(
      "E_OPTION",
      `vae: only with a model file that has none; ${pathOrName} says itself which it has`,
    );
  }
  const folder = await openModelFolder(await folderOf(pathOrName, options));
  return (engine, quantize) => DiffusionPipeline.fromFolder(folder, engine, quantize);
}

async function originalDiTAt(path: string, options: PretrainedOptions & DownloadOptions): Promise<Build> {
  const model = await openOriginalDiT(path, options.heads === undefined ? {} : { heads: options.heads });
  if (options.vae === undefined) {
    throw new FemoError(
      "E_OPTION",
      `${path} draws latents: pass vae, the autoencoder that turns them into images, such as "stabilityai/sd-vae-ft-mse"`,
    );
  }
  const vae = await openVae(options.vae, options);
  return (engine, quantize) => DiffusionPipeline.fromOriginalDiT(basename(path), model, vae, engine, quantize);
}

/** An autoencoder alone, or that of a pipeline. */
async function openVae(pathOrName: string, options: DownloadOptions): Promise<ModelComponent> {
  const place = async (folder: FolderSource) => ((await folder.exists("model_index.json")) ? "vae" : ".");
  const select = async (folder: FolderSource) => {
    const component = await place(folder);
    return [...(component === "vae" ? ["model_index.json"] : []), ...(await componentFiles(folder, component))];
  };
  const folder = await folderOf(pathOrName, { ...options, select });
  return openComponent(folder, await place(folder));
}

/** An embedded model before a folder, and a folder before a model on the Hub. */
async function folderOf(pathOrName: string, options: DownloadOptions): Promise<FolderSource> {
  if (embeddedModels().includes(pathOrName)) return nodeFolder(`${MODELS}${pathOrName}`);
  if (existsSync(pathOrName)) return nodeFolder(pathOrName);
  const id = parseModelId(pathOrName);
  if (id) return openHubModel(id, options);
  const known = embeddedModels().map((name) => `"${name}"`);
  throw new FemoError(
    "E_FILE",
    `${pathOrName}: expected an embedded model (${known.join(", ")}), a folder in diffusers' layout, a file of the ` +
      'original DiT release, or a model on the Hub such as "facebook/DiT-XL-2-256" or "owner/name@revision"; found none ' +
      "of them.",
  );
}

const isFile = (path: string): boolean => existsSync(path) && statSync(path).isFile();
