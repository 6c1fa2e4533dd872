import { existsSync } from "node:fs";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { FemoError } from "../errors.js";

/**
 * @throws FemoError E_OPTION if one of the files exists
 */
export function checkAbsent(paths: readonly string[]): void {
  const path = paths.find((candidate) => existsSync(candidate));
  if (path !== undefined)
    throw new FemoError("E_OPTION", `${path} exists. --force overwrites it, --out goes elsewhere`);
}

/** Writes all files or none, each under another name in its folder until it is whole. */
export async function writeFiles(
  files: readonly { path: string; content: Uint8Array | string }[],
  signal: AbortSignal,
): Promise<void> {
  const temporary = (path: string): string => `${path}.${process.pid}.tmp`;
  try {
    for (const { path, content } of files) {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(temporary(path), content, { signal });
    }
    signal.throwIfAborted();
    for (const { path } of files) await rename(temporary(path), path);
  } finally {
    await Promise.all(files.map(({ path }) => rm(temporary(path), { force: true })));
  }
}
