import { FemoError } from "../errors.js";
import { type FolderSource, pathInside } from "./folder-source.js";
import { isObject, parseJson } from "./json.js";
import { CONFIG_FILES, type ComponentOptions, MEASURED_FILES, openModelFolder } from "./model-folder.js";
import { listSome, quote } from "./text.js";
import { findWeights, firstThatExists, variantByComponent } from "./weight-files.js";

/**
 * The files of a diffusers pipeline that are needed to run it: the index, and of each component its config and its
 * weights or vocabulary, once: those that `ModelFolder.component` would open.
 * @param folder of the repository's files; only indices are read
 * @throws FemoError E_FILE if there is no pipeline, or a part of it without its config or weights; E_CONFIG if its index
 *   is malformed; E_OPTION if the variant is no name
 */
export async function pipelineFiles(folder: FolderSource, options: ComponentOptions = {}): Promise<string[]> {
  const { components } = await openModelFolder(folder);
  const present = Object.keys(components).filter((component) => components[component] && !UNREAD.has(component));
  const variantOf = await variantByComponent(folder, present, options.variant);
  const files = ["model_index.json"];
  for (const file of Object.values(MEASURED_FILES)) if (await folder.exists(file)) files.push(file);
  for (const component of present) {
    files.push(...(await componentFiles(folder, component, { variant: variantOf(component) })));
  }
  return [...new Set(files)];
}

/** Parts of pipelines that draw nothing: what looks at finished images, or reads images as prompts. */
const UNREAD: ReadonlySet<string> = new Set(["safety_checker", "feature_extractor", "image_encoder"]);

/**
 * The files of one component: its config and, unless it has none, its weights.
 * @param component where it lies in the folder; "." if the folder is the component
 * @throws FemoError E_FILE if the config, or the weights of a model, are not there
 */
export async function componentFiles(
  folder: FolderSource,
  component: string,
  { variant }: ComponentOptions = {},
): Promise<string[]> {
  const plain = (path: string): string => pathInside(folder.name, path);
  const configs = CONFIG_FILES.map((file) => `${component}/${file}`);
  const config = await firstThatExists(folder, configs);
  if (config === undefined) {
    throw new FemoError(
      "E_FILE",
      `${folder.name}: found no config of ${quote(component)}. Another revision, or another copy of the model, may have ` +
        `one of these files:${listSome(configs)}`,
    );
  }
  // Only models have a config of that name; schedulers and tokenizers need no weights.
  if (!config.endsWith("/config.json")) {
    const files = [config];
    for (const file of VOCABULARIES) {
      const path = `${component}/${file}`;
      if (await folder.exists(path)) files.push(path);
    }
    return files.map(plain);
  }
  const weights = await findWeights(folder, component, variant);
  return [config, weights, ...(await shards(folder, weights))].map(plain);
}

/** What a tokenizer has beside its config. */
const VOCABULARIES = ["tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "special_tokens_map.json"];

/** The files that an index names; none if it is the weights themselves. */
async function shards(folder: FolderSource, weights: string): Promise<string[]> {
  if (!weights.endsWith(".json")) return [];
  const name = `${folder.name}/${weights}`;
  const index = parseJson(await folder.readText(weights), name, "E_FILE");
  const map = isObject(index) && isObject(index.weight_map) ? index.weight_map : {};
  const base = weights.slice(0, weights.lastIndexOf("/") + 1);
  const paths = [...new Set(Object.values(map))].map((shard) => base + pathInside(name, String(shard)));
  for (const path of paths) {
    if (!(await folder.exists(path))) {
      throw new FemoError("E_FILE", `${name}: names ${quote(path)}, which is not there. Is there another revision?`);
    }
  }
  return paths;
}
