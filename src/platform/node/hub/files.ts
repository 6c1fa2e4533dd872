import { stat, writeFile } from "node:fs/promises";
import { FemoError } from "../../../errors.js";
import { codeOf, fileError, isMissing } from "../file.js";
import { writeWhole } from "../whole-files.js";

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

/**
 * Makes a file whole under its name or not at all: `write` is given another name in the same folder.
 * @throws FemoError E_FILE
 */
export async function putInPlace(path: string, write: (temporary: string) => Promise<void>): Promise<void> {
  try {
    await writeWhole({ path, write });
  } catch (cause) {
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
