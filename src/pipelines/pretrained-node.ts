import { existsSync, readdirSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { FemoError } from "../errors.js";
import { createNodeEngine } from "../runtime/node.js";
import { openModelFolder } from "../weights/index.js";
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
export async function openPretrained(pathOrName: string, options: PretrainedOptions): Promise<DiffusionPipeline> {
  const path = embeddedModels().includes(pathOrName) ? `${MODELS}${pathOrName}` : pathOrName;
  if (!existsSync(path)) {
    const known = embeddedModels().map((name) => `"${name}"`);
    throw new FemoError(
      "E_FILE",
      `${basename(path)}: expected a folder in diffusers' layout or an embedded model (${known.join(", ")}), found neither at ${path}`,
    );
  }
  const folder = await openModelFolder(nodeFolder(path));
  const engine = createNodeEngine(options);
  try {
    return await DiffusionPipeline.fromFolder(folder, engine);
  } catch (error) {
    await engine.close();
    throw error;
  }
}
