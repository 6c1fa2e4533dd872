import { copyFile, mkdir, readFile, rename, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { RemoteFile } from "../../hub/listing.js";
import { isCommit } from "../../hub/model-id.js";
import { fileError, isMissing } from "../file.js";
import { putInPlace, sizeOf, writeError, writeText } from "./files.js";
import type { HubSettings } from "./settings.js";

/**
 * The folder of one repository in the cache that Python's huggingface_hub fills too:
 *
 *     models--owner--name/blobs/<digest>                        the bytes, once each
 *                        /snapshots/<commit>/<path>             links to them, relative
 *                        /refs/<branch or tag>                  the commit it was last seen at
 */
export class RepositoryCache {
  readonly #folder: string;
  readonly #symlinks: boolean;

  constructor({ cache, symlinks }: Pick<HubSettings, "cache" | "symlinks">, repo: string) {
    this.#folder = join(cache, ["models", ...repo.split("/")].join("--"));
    this.#symlinks = symlinks;
  }

  get blobs(): string {
    return join(this.#folder, "blobs");
  }

  /** Where the file with these bytes is kept. */
  blob({ digest }: RemoteFile): string {
    return join(this.blobs, digest);
  }

  snapshot(commit: string): string {
    return join(this.#folder, "snapshots", commit);
  }

  /** The commit that a revision stood for when it was last downloaded. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const path = join(this.#folder, "refs", revision);
    try {
      const commit = (await readFile(path, "utf8")).trim();
      return isCommit(commit) ? commit : undefined;
    } catch (cause) {
      if (isMissing(cause)) return undefined;
      throw fileError(path, cause);
    }
  }

  /** Remembers what a revision stands for. */
  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return; // the cache may be read-only
    await writeText(join(this.#folder, "refs", revision), commit);
  }

  /** True if the snapshot has the file, at least in its whole size. */
  async has(commit: string, file: RemoteFile): Promise<boolean> {
    return (await sizeOf(join(this.snapshot(commit), file.path))) === file.size;
  }

  /** True if the file's bytes are there, from whatever commit. */
  async hasBlob(file: RemoteFile): Promise<boolean> {
    return (await sizeOf(this.blob(file))) === file.size;
  }

  /**
   * Puts a blob that is there into a snapshot: as a link, or where that is impossible as the file itself.
   * @param fresh nothing else uses the blob yet, so that it may be moved instead of copied
   */
  async place(commit: string, file: RemoteFile, fresh: boolean): Promise<void> {
    const blob = this.blob(file);
    const path = join(this.snapshot(commit), file.path);
    if (this.#symlinks && (await linkInPlace(blob, path))) return;
    try {
      if (!fresh) return await putInPlace(path, (temporary) => copyFile(blob, temporary));
      await mkdir(dirname(path), { recursive: true });
      await rename(blob, path);
    } catch (cause) {
      if (await this.has(commit, file)) return; // another process has moved the blob there meanwhile
      throw writeError(path, cause);
    }
  }
}

/** False if this file system, or this user, can make no symbolic links. */
async function linkInPlace(blob: string, path: string): Promise<boolean> {
  let impossible = false;
  try {
    await putInPlace(path, async (temporary) => {
      try {
        await symlink(relative(dirname(path), blob), temporary);
      } catch (cause) {
        impossible = true;
        throw cause;
      }
    });
    return true;
  } catch (cause) {
    if (impossible) return false; // what follows fails too if the disk is the reason
    throw cause;
  }
}
