/**
 * Weight files on disk. ONNX Runtime maps them into memory and goes on reading them while it runs, so a file that is
 * written to would give a mixture of two checkpoints. Their fingerprints are compared around every load and every run.
 * What is missed: a write within a run that leaves size, inode and time of modification as they were, such as one by a
 * program that sets the time back, or through a memory map that the system has not accounted for yet.
 */
import { type BigIntStats, readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { FemoError } from "../../errors.js";
import type { WeightFile } from "../../runtime/engine.js";
import type { Host } from "../../runtime/executor.js";
import { fileError, fingerprintOf, isMissing } from "./file.js";

/**
 * Weight files as they can be sent to another process: paths with fingerprints, and bytes.
 * @throws FemoError E_FILE if there is no such file, or an address is not that of a file
 */
export function localFiles(files: readonly WeightFile[]): Promise<WeightFile[]> {
  return Promise.all(
    files.map(async ({ name, at, fingerprint }) => {
      if (at instanceof Blob) return { name, at: new Uint8Array(await at.arrayBuffer()) };
      if (at instanceof Uint8Array) return { name, at };
      const path = pathOf(at);
      return { name, at: path, fingerprint: fingerprint ?? fingerprintOf(statOf(path)) };
    }),
  );
}

/** Where ONNX Runtime finds files of `localFiles`: in the folder to which their names are relative, or all in memory. */
export function locate(files: readonly WeightFile[]): ReturnType<Host["locate"]> {
  if (files.some(({ at }) => at instanceof Uint8Array)) {
    return {
      externalData: files.map(({ name, at }) => ({
        path: name,
        data: at instanceof Uint8Array ? at : readFileSync(at as string),
      })),
    };
  }
  const folders = [...new Set(files.map(folderOf))];
  if (folders.length > 1) {
    throw new FemoError(
      "E_FILE",
      `expected weight files named from one folder, found ${folders.join(", ")}. Copy them together.`,
    );
  }
  const [folder] = folders;
  return folder === undefined ? {} : { folder };
}

/** @throws FemoError E_FILE if one of the files is gone, or not what it was */
export function checkUnchanged(files: readonly WeightFile[]): void {
  for (const { at, fingerprint } of files) {
    if (typeof at !== "string" || fingerprintOf(statOf(at)) === fingerprint) continue;
    throw new FemoError("E_FILE", `${at}: changed since it was opened. Open the model again.`);
  }
}

function folderOf({ name, at }: WeightFile): string {
  const path = String(at);
  if (path.endsWith(name)) return path.slice(0, path.length - name.length);
  throw new FemoError("E_FILE", `${path}: expected a path that ends with "${name}", as the graph names the file`);
}

function pathOf(at: string | URL): string {
  if (typeof at === "string") return at;
  if (at.protocol === "file:") return fileURLToPath(at);
  throw new FemoError("E_FILE", `${at}: expected a file on this machine. Download it first.`);
}

function statOf(path: string): BigIntStats {
  try {
    return statSync(path, { bigint: true });
  } catch (cause) {
    if (!isMissing(cause)) throw fileError(path, cause);
    throw new FemoError("E_FILE", `${path}: no such file any more. Put it back and open the model again.`, { cause });
  }
}
