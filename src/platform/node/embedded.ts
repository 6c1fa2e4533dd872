import { existsSync, readdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { isMissing } from "./file.js";

/** The models that come with the package, each a folder in diffusers' layout. */
const MODELS = fileURLToPath(new URL("../../../models", import.meta.url));

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
