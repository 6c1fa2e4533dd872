import { createHash } from "node:crypto";
import { createReadStream, existsSync, statSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { FemoError } from "../../errors.js";
import type { FindFileOptions, FoundFile, PublishedFile } from "../platform.js";
import { embeddedFolder } from "./embedded.js";
import { fileError } from "./file.js";
import { nodeFolder } from "./folder.js";
import { downloadAddress } from "./hub/address.js";
import { cacheFolder } from "./kept.js";
import { findModel, type HubAccess } from "./models.js";

/** SHA-256 of a file, in hexadecimal digits. @throws FemoError E_FILE; the signal's reason if it was aborted */
export async function sha256Of(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) {
      signal?.throwIfAborted();
      hash.update(chunk as Buffer);
    }
  } catch (cause) {
    signal?.throwIfAborted();
    throw fileError(path, cause);
  }
  return hash.digest("hex");
}

/** See `Platform.findFile`. */
export async function findFile(
  file: PublishedFile,
  options: FindFileOptions = {},
  access: HubAccess = {},
): Promise<FoundFile> {
  const { at, cacheDir, signal, onProgress } = options;
  if (at !== undefined) return localFile(file, resolve(at), signal);
  const { from } = file;
  if ("embedded" in from) return checked(file, join(embeddedFolder(from.embedded), file.name), signal);
  if ("hub" in from) {
    const select = async (): Promise<string[]> => [file.name];
    const { folder } = await findModel(from.hub, { cacheDir, signal, onProgress, select }, access);
    return checked(file, folder.resolve(file.name), signal);
  }
  const path = join(cacheDir ?? join(cacheFolder(), "files"), file.name);
  if (!existsSync(path)) {
    const onBytes = (bytesDone: number, bytesTotal: number): void =>
      onProgress?.({ model: from.url, file: file.name, bytesDone, bytesTotal });
    const isRight = async (downloaded: string): Promise<boolean> => fits(file, await sha256Of(downloaded, signal));
    await downloadAddress(from.url, path, file.name.replaceAll(".", "_"), isRight, { ...access, signal, onBytes });
  }
  return checked(file, path, signal);
}

/** Where to get a file, for messages. */
const whereFrom = ({ name, from }: PublishedFile): string =>
  "url" in from ? from.url : "hub" in from ? `${name} of "${from.hub}" on the Hub` : "the package femo";

const fits = (file: PublishedFile, sha256: string): boolean =>
  file.sha256 === undefined || sha256.startsWith(file.sha256);

/** A folder that has it, or the file itself under any name. */
async function localFile(file: PublishedFile, at: string, signal?: AbortSignal): Promise<FoundFile> {
  const found = existsSync(at) ? statSync(at) : undefined;
  if (found === undefined) {
    throw new FemoError("E_FILE", `${at}: no such file or folder. Expected ${file.name}, from ${whereFrom(file)}.`);
  }
  if (found.isFile()) {
    const beside = join(dirname(at), file.name);
    return checked(file, basename(at) !== file.name && existsSync(beside) ? beside : at, signal);
  }
  const path = join(at, file.name);
  if (existsSync(path)) return checked(file, path, signal);
  throw new FemoError(
    "E_FILE",
    `${at}: expected ${file.name} in this folder, found none. Get it from ${whereFrom(file)}.`,
  );
}

/** @throws FemoError E_FILE if it is another file than was published */
async function checked(file: PublishedFile, path: string, signal?: AbortSignal): Promise<FoundFile> {
  const sha256 = await sha256Of(path, signal);
  if (fits(file, sha256)) return { folder: nodeFolder(dirname(path)), path: basename(path), sha256 };
  const digits = file.sha256?.length === 64 ? "the SHA-256" : "a SHA-256 that begins with";
  throw new FemoError(
    "E_FILE",
    `${path}: expected ${file.name} with ${digits} ${file.sha256}, found ${sha256}. It is another file, or damaged: get ` +
      `it from ${whereFrom(file)}.`,
  );
}
