import { existsSync, readdirSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isMissing } from "./file.js";

/** The package that has the embedded models, and which they are. */
export const MODELS_PACKAGE = "femo-models";
export const PACKED_MODELS: readonly string[] = ["avatars-dit", "avatars-flux", "avatars-sd"];

/** Where they lie, each a folder in diffusers' layout: beside this package in its repository, else where the other is installed. */
const MODELS = modelsFolder();

function modelsFolder(): string {
  const own = fileURLToPath(new URL("../../../models", import.meta.url));
  if (existsSync(own)) return own;
  try {
    return dirname(createRequire(import.meta.url).resolve(`${MODELS_PACKAGE}/package.json`));
  } catch {
    return own; // there are none
  }
}

/** Names of the embedded models; none where the package was installed without them. */
export function embeddedModels(): string[] {
  try {
    return readdirSync(MODELS, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && existsSync(join(MODELS, entry.name, "model_index.json")))
      .map((entry) => entry.name);
  } catch (cause) {
    if (isMissing(cause)) return [];
    throw cause;
  }
}

/** Where an embedded model lies. */
export const embeddedFolder = (name: string): string => join(MODELS, name);

/** The name of the embedded model that a folder is, by whatever path; undefined if it is another folder. */
export function embeddedModelAt(path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  const place = realpathSync(path);
  return embeddedModels().find((name) => realpathSync(embeddedFolder(name)) === place);
}
