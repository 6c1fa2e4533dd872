import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FemoError } from "../errors.js";
import { createNodeEngine } from "../runtime/node.js";
import { type DownloadOptions, openHubModel, parseModelId } from "../weights/hub/index.js";
import { type FolderSource, openModelFolder } from "../weights/index.js";
import { nodeFolder } from "../weights/node-folder.js";
import { DiffusionPipeline, type PretrainedOptions } from "./diffusion-pipeline.js";

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
  const folder = await openModelFolder(await folderOf(pathOrName, options));
  const engine = createNodeEngine(options);
  try {
    return await DiffusionPipeline.fromFolder(folder, engine);
  } catch (error) {
    await engine.close();
    throw error;
  }
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
    `${pathOrName}: expected an embedded model (${known.join(", ")}), a folder in diffusers' layout, or a model on the ` +
      'Hub such as "facebook/DiT-XL-2-256" or "owner/name@revision"; found none of them.',
  );
}
