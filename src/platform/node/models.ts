import { existsSync, statSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { FemoError } from "../../errors.js";
import { quote } from "../../weights/text.js";
import type { FindOptions, FoundModel, ModelPlace } from "../platform.js";
import { embeddedFolder, embeddedModelAt, embeddedModels, MODELS_PACKAGE, PACKED_MODELS } from "./embedded.js";
import { nodeFolder } from "./folder.js";
import { type DownloadOptions, type ModelId, openHubModel, parseModelId } from "./hub/index.js";

/** How to reach the Hub, where that is not as the process's environment says. */
export type HubAccess = Pick<DownloadOptions, "env" | "retry">;

/** An embedded model before a folder or file, and that before a model on the Hub; see `Platform.findModel`. */
export async function findModel(
  place: ModelPlace,
  options: FindOptions = {},
  access: HubAccess = {},
): Promise<FoundModel> {
  const path = withoutIndex(pathOf(place));
  const embedded = embeddedModels().includes(path) ? path : embeddedModelAt(path);
  if (embedded !== undefined || existsSync(path)) {
    checkNoRevision(path, options);
    if (isFile(path)) return { folder: nodeFolder(dirname(resolve(path))), name: basename(path), file: basename(path) };
    const folder = nodeFolder(embedded === path ? embeddedFolder(path) : path);
    return { folder, name: embedded ?? (basename(resolve(path)) || path), file: undefined };
  }
  const { cacheDir, token, signal, onProgress, select } = options;
  const id = hubId(path, options.revision);
  if (id) {
    const download = { ...access, cacheDir, token, signal, onProgress, ...(select && { select }) };
    return { folder: await openHubModel(id, download), name: id.repo, file: undefined };
  }
  if (PACKED_MODELS.includes(path)) {
    throw new FemoError(
      "E_FILE",
      `${path}: comes with the package ${MODELS_PACKAGE}, which is not installed beside femo: npm install ${MODELS_PACKAGE}`,
    );
  }
  const known = embeddedModels().map(quote).join(", ");
  throw new FemoError(
    "E_FILE",
    `${path}: expected ${known && `an embedded model (${known}), `}a folder in diffusers' layout, a file of the original ` +
      'release of DiT or FLUX.1, or a model on the Hub such as "facebook/DiT-XL-2-256" or "owner/name@revision"; found none of them.',
  );
}

/** @throws FemoError E_OPTION if it is no path or name */
function pathOf(place: ModelPlace): string {
  if (typeof place === "string") return place;
  if (place instanceof URL && place.protocol === "file:") return fileURLToPath(place);
  const found =
    place instanceof URL ? `the address ${place.href}. Download it first` : "files, which only browsers pick";
  throw new FemoError("E_OPTION", `the model: expected a path, a name or a model on the Hub, found ${found}`);
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

function checkNoRevision(path: string, { revision }: FindOptions): void {
  if (revision === undefined) return;
  throw new FemoError("E_OPTION", `revision: only of a model on the Hub; ${path} is on this machine`);
}

/** The folder of a pipeline instead of the file that makes it one. */
const withoutIndex = (path: string): string =>
  basename(path) === "model_index.json" && isFile(path) ? dirname(path) : path;

const isFile = (path: string): boolean => existsSync(path) && statSync(path).isFile();
