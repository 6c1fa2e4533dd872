import { FemoError } from "../../errors.js";
import { quote } from "../../weights/text.js";
import { parseModelId } from "../hub/model-id.js";
import type { FindOptions, FoundModel, ModelPlace } from "../platform.js";
import { blobFolder } from "./blob-folder.js";
import { openRemote } from "./download.js";
import { hubRemote, keyOf, type Remote, urlRemote } from "./remote.js";
import { openStore } from "./store.js";

/** See `Platform.findModel`: an address, files that the user picked, or a model on the Hub. */
export async function findModel(place: ModelPlace, options: FindOptions = {}): Promise<FoundModel> {
  if (options.cacheDir !== undefined) {
    throw new FemoError("E_OPTION", "cacheDir: a browser keeps downloads in a place of its own. Leave it out");
  }
  if (typeof place !== "string" && !(place instanceof URL)) {
    checkNoRevision("files that were picked", options);
    return pickedModel(place instanceof Blob ? [place] : place);
  }
  const url = addressOf(place);
  if (url) {
    checkNoRevision(url.href, options);
    return urlModel(url, options);
  }
  const text = String(place);
  const id = parseModelId(text.includes("@") ? text : `${text}@${options.revision ?? "main"}`);
  if (id) return { folder: await opened(hubRemote(id, options.token), options), name: id.repo, file: undefined };
  throw new FemoError(
    "E_FILE",
    `${text}: expected the address of a model, such as new URL("./models/avatars-flux/", location.href), files that the user ` +
      'picked, or a model on the Hub such as "facebook/DiT-XL-2-256"; found none of them. The models that come with femo are ' +
      "folders to be served beside the page.",
  );
}

/** Texts that begin as addresses and paths do; others are names on the Hub. */
function addressOf(place: string | URL): URL | undefined {
  if (place instanceof URL) return place;
  if (!/^(?:https?:|blob:|\.{0,2}\/)/.test(place)) return undefined;
  return URL.canParse(place, location.href) ? new URL(place, location.href) : undefined;
}

const FILE = /\.(?:safetensors|gguf|bin|pt|pth|ckpt)$/i;

async function urlModel(url: URL, options: FindOptions): Promise<FoundModel> {
  const path = url.pathname.replace(/model_index\.json$/, "");
  const isFile = FILE.test(path);
  const folder = new URL(url);
  folder.pathname = isFile ? path.slice(0, path.lastIndexOf("/") + 1) : path.replace(/\/*$/, "/");
  const last = decodeURIComponent(path.split("/").findLast(Boolean) ?? url.host);
  const select = isFile ? async () => [last] : options.select;
  const found = await opened(urlRemote(folder), { ...options, ...(select && { select }) });
  return { folder: found, name: last, file: isFile ? last : undefined };
}

const opened = async (remote: Remote, options: FindOptions) => openRemote(remote, await openStore(), options);

/** Files as `<input type="file">` gives them, of a folder with `webkitRelativePath`. */
function pickedModel(files: readonly File[]): FoundModel {
  const [first] = files;
  if (!first) throw new FemoError("E_FILE", "no file was picked. Pick a model file, or the folder of a model.");
  if (files.length === 1 && !first.webkitRelativePath) {
    return { folder: folderOf(first.name, [[first.name, first]]), name: first.name, file: first.name };
  }
  const paths = files.map((file) => file.webkitRelativePath || file.name);
  // The folder that has the index of a pipeline, else the one that was picked.
  const index = paths.filter((path) => /(?:^|\/)model_index\.json$/.test(path)).sort((a, b) => a.length - b.length)[0];
  const base = index?.slice(0, -"model_index.json".length) ?? `${paths[0]?.split("/")[0]}/`;
  const inside = files.flatMap((file, i): [string, File][] => {
    const path = paths[i] as string;
    return path.startsWith(base) ? [[path.slice(base.length), file]] : [];
  });
  const name = base.split("/").findLast(Boolean) ?? "the files that were picked";
  return { folder: folderOf(name, inside), name, file: undefined };
}

function folderOf(name: string, files: readonly (readonly [string, File])[]) {
  const blobs = new Map(
    files.map(([path, blob]) => [path, { blob, version: `${blob.size}:${blob.lastModified}` }] as const),
  );
  const key = keyOf(JSON.stringify([name, ...[...blobs].map(([path, { version }]) => [path, version])]));
  return blobFolder(name, blobs, `/${key}`);
}

function checkNoRevision(what: string, { revision }: FindOptions): void {
  if (revision === undefined) return;
  throw new FemoError("E_OPTION", `revision: only of a model on the Hub, found ${quote(revision)} of ${what}`);
}
