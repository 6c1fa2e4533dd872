import { createHash, type Hash } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { RemoteFile } from "../../hub/listing.js";
import { claimFile, type OwnedFiles, releaseFile } from "../owned-files.js";
import { writeError } from "./files.js";

/** The bytes of a file that have arrived so far, in a file of this download's own (`OwnedFiles`). */
export class PartialFile {
  readonly path: string;
  readonly #folder: string;
  readonly #file: RemoteFile;
  readonly #handle: FileHandle;
  #hash: Hash;
  #size = 0;

  private constructor(folder: string, path: string, file: RemoteFile, handle: FileHandle) {
    this.#folder = folder;
    this.path = path;
    this.#file = file;
    this.#handle = handle;
    this.#hash = newHash(file);
  }

  /** Takes over what an earlier download of the file has left, or starts with nothing. */
  static async claim(folder: string, file: RemoteFile): Promise<PartialFile> {
    const files = partsOf(folder, file);
    try {
      const path = await claimFile(files);
      const partial = new PartialFile(folder, path, file, await open(path, "a+"));
      await partial.#readExisting();
      return partial;
    } catch (cause) {
      throw writeError(join(folder, file.digest), cause);
    }
  }

  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  /** True if the bytes are exactly those of the file. */
  isWhole(): boolean {
    return this.#size === this.#file.size && this.#hash.copy().digest("hex") === this.#file.digest;
  }

  async append(bytes: Uint8Array): Promise<void> {
    try {
      await this.#handle.appendFile(bytes);
    } catch (cause) {
      throw writeError(this.path, cause);
    }
    this.#hash.update(bytes);
    this.#size += bytes.length;
  }

  /** Throws the bytes away. */
  async clear(): Promise<void> {
    try {
      await this.#handle.truncate(0);
    } catch (cause) {
      throw writeError(this.path, cause);
    }
    this.#hash = newHash(this.#file);
    this.#size = 0;
  }

  /** The bytes are whole: they become the file at `path`. */
  async finish(path: string): Promise<void> {
    try {
      await this.#handle.datasync(); // or a power cut could leave the name without all the bytes
      await this.#handle.close();
      await rename(this.path, path);
    } catch (cause) {
      throw writeError(path, cause);
    }
  }

  /** The bytes are not needed. */
  async discard(): Promise<void> {
    await this.#handle.close();
    await rm(this.path, { force: true });
  }

  /** Leaves the bytes for another download to take over. */
  async release(): Promise<void> {
    if (this.#size === 0) return this.discard();
    await this.#handle.close();
    await releaseFile(this.path, partsOf(this.#folder, this.#file));
  }

  async #readExisting(): Promise<void> {
    const buffer = Buffer.allocUnsafe(2 ** 20);
    for (;;) {
      const { bytesRead } = await this.#handle.read(buffer, 0, buffer.length, this.#size);
      if (bytesRead === 0) return;
      this.#hash.update(buffer.subarray(0, bytesRead));
      this.#size += bytesRead;
    }
  }
}

const partsOf = (folder: string, { digest }: RemoteFile): OwnedFiles => ({
  folder,
  stem: digest,
  ending: "incomplete",
});

/** git hashes a file with a header before its bytes. */
function newHash({ algorithm, size }: RemoteFile): Hash {
  return algorithm === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}
