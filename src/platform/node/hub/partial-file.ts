import { createHash, type Hash } from "node:crypto";
import { readlinkSync } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { writeError } from "./files.js";
import type { RemoteFile } from "./listing.js";

/**
 * The bytes of a file that have arrived so far, in a file of this download's own: `<digest>.femo-<host>-<pid>-<n>.incomplete`.
 * Another download takes it over by renaming it, which only one can do, once its owner has let go
 * (`<digest>.femo.incomplete`) or has died. So no two ever write to the same file, without locks.
 */
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
    const path = join(folder, `${file.digest}.femo-${HOST}-${process.pid}-${serial++}.incomplete`);
    try {
      await mkdir(folder, { recursive: true });
      let taken = false;
      for (const left of await abandoned(folder, file.digest)) {
        if (taken) await rm(left, { force: true });
        else taken = await tryRename(left, path); // another download may be quicker
      }
      const partial = new PartialFile(folder, path, file, await open(path, "a+"));
      await partial.#readExisting();
      return partial;
    } catch (cause) {
      throw writeError(path, cause);
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
    await rename(this.path, join(this.#folder, `${this.#file.digest}.femo.incomplete`));
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

let serial = 0;

const tryRename = (from: string, to: string): Promise<boolean> =>
  rename(from, to).then(
    () => true,
    () => false,
  );

/** git hashes a file with a header before its bytes. */
function newHash({ algorithm, size }: RemoteFile): Hash {
  return algorithm === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/** Where process numbers mean the same: this machine and, on Linux, this container. */
const HOST = createHash("sha256").update(`${hostname()} ${processNamespace()}`).digest("hex").slice(0, 8);

function processNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return ""; // not Linux: there is only one
  }
}

/** What nobody writes to any more, of one file, the longest first. */
async function abandoned(folder: string, digest: string): Promise<string[]> {
  const found: { path: string; size: number }[] = [];
  for (const name of await readdir(folder)) {
    const match = /^([0-9a-f]+)\.femo(?:-([0-9a-f]{8})-(\d+)-\d+)?\.incomplete$/.exec(name);
    if (match?.[1] !== digest) continue;
    const path = join(folder, name);
    const state = await stat(path).catch(() => undefined); // taken over or finished meanwhile
    const [, , host, pid] = match;
    if (!state || (host !== undefined && (host !== HOST || isWriting(Number(pid), state.mtimeMs)))) continue;
    found.push({ path, size: state.size });
  }
  return found.sort((a, b) => b.size - a.size).map(({ path }) => path);
}

/** True if the process may still be writing to a file last changed at that time. */
function isWriting(pid: number, mtimeMs: number): boolean {
  // In containers an earlier process often had the number that this one has.
  if (pid === process.pid) return mtimeMs > Date.now() - 1000 * process.uptime();
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}
