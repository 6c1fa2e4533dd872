import { mkdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";

/** A file to be, and what fills it. */
export interface WholeFile {
  readonly path: string;
  /** Writes the contents under another name in the same folder, which is there. */
  readonly write: (temporary: string) => Promise<unknown>;
}

let serial = 0;

/** A name that no other file has, in this process or another. */
const uniqueName = (path: string): string =>
  join(dirname(path), `.${basename(path)}.${process.pid}-${Date.now().toString(36)}-${serial++}.tmp`);

/**
 * Makes files whole under their names or not at all: each is written under another name, and they get theirs when all of
 * them are whole. Folders are made.
 * @throws whatever failed; nothing is left of what was written
 */
export async function writeWhole(...files: readonly WholeFile[]): Promise<void> {
  const parts = files.map(({ path, write }) => ({ path, write, temporary: uniqueName(path) }));
  try {
    for (const { path, write, temporary } of parts) {
      await mkdir(dirname(path), { recursive: true });
      await write(temporary);
    }
    for (const { path, temporary } of parts) await rename(temporary, path);
  } finally {
    // What failed says more than what could not be removed.
    await Promise.all(parts.map(({ temporary }) => rm(temporary, { force: true }).catch(() => {})));
  }
}
