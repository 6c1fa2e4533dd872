import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { FemoError } from "../errors.js";
import { writeWhole } from "../weights/whole-files.js";

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
  const write = (content: Uint8Array | string) => (path: string) => writeFile(path, content, { signal });
  await writeWhole(...files.map(({ path, content }) => ({ path, write: write(content) })));
}
