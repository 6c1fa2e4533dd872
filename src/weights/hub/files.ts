import { mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { FemoError } from "../../errors.js";
import { codeOf, fileError, isMissing } from "../node-file.js";

/** Bytes of the file at a path, all links followed; undefined if there is none. */
export async function sizeOf(path: string): Promise<number | undefined> {
  try {
    const found = await stat(path);
    return found.isFile() ? found.size : undefined;
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw fileError(path, cause);
  }
}

let serial = 0;

/** A name that no other file has, in this process or another. Not for files that a later run should find. */
export const uniqueName = (path: string): string =>
  join(dirname(path), `.${basename(path)}.${process.pid}-${Date.now().toString(36)}-${serial++}.tmp`);

/**
 * Makes a file whole under its name or not at all: `make` is given another name in the same folder.
 * @throws FemoError E_FILE
 */
export async function putInPlace(path: string, make: (temporary: string) => Promise<void>): Promise<void> {
  const temporary = uniqueName(path);
  try {
    await mkdir(dirname(path), { recursive: true });
    await make(temporary);
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {}); // the cause says more
    throw writeError(path, cause);
  }
}

export const writeText = (path: string, text: string): Promise<void> =>
  putInPlace(path, (temporary) => writeFile(temporary, text));

/** What a failed write means, in a message that names the path. */
export function writeError(path: string, cause: unknown): FemoError {
  if (cause instanceof FemoError) return cause;
  const code = codeOf(cause);
  const advice = ["ENOSPC", "EDQUOT"].includes(code)
    ? "no space left. Free some, or set HF_HUB_CACHE to a folder on a larger disk; what is there already is kept."
    : ["EACCES", "EPERM", "EROFS"].includes(code)
      ? "may not be written. Change its permissions, or set HF_HUB_CACHE to a folder of yours."
      : `cannot be written: ${cause instanceof Error ? cause.message : String(cause)}. Check the disk.`;
  return new FemoError("E_FILE", `${path}: ${advice}`, { cause });
}
