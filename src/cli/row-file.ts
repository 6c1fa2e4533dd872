import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import { FemoError } from "../errors.js";
import type { RowStore } from "../metrics/index.js";
import { cacheFolder } from "../platform/node/kept.js";
import { claimFile, type OwnedFiles, releaseFile } from "../platform/node/owned-files.js";
import { keepingError } from "./files.js";

const DIGEST_BYTES = 32;
const CHECK_BYTES = 8;

/** SHA-256 of texts, in hexadecimal digits. */
export const digestOf = (...parts: readonly string[]): string =>
  createHash("sha256").update(JSON.stringify(parts)).digest("hex");

/**
 * Rows of numbers in a file of femo's cache folder, each under the digest of what it was computed of. A row is whole or not
 * there: what was cut off by the end of a process is dropped when the file is opened again. Two processes never write to
 * the same file.
 */
export class RowFile implements RowStore {
  readonly #files: OwnedFiles;
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #width: number;
  readonly #type: RowType;
  /** Which record. */
  readonly #known = new Map<string, number>();

  private constructor(files: OwnedFiles, path: string, handle: FileHandle, width: number, type: RowType) {
    this.#files = files;
    this.#path = path;
    this.#handle = handle;
    this.#width = width;
    this.#type = type;
  }

  /**
   * @param kind all that the numbers depend on beside what they are of: the convention, the hash of the weights, the folder
   * @param width numbers of a row
   * @throws FemoError E_FILE if the cache folder cannot be written
   */
  static async open(kind: readonly string[], width: number, type: RowType): Promise<RowFile> {
    const folder = join(cacheFolder(), "metrics");
    const files: OwnedFiles = { folder, stem: digestOf(...kind, type, String(width)).slice(0, 32), ending: "rows" };
    try {
      const path = await claimFile(files);
      const file = new RowFile(files, path, await open(path, "a+"), width, type);
      await file.#readExisting();
      return file;
    } catch (cause) {
      if (cause instanceof FemoError) throw cause;
      throw storeError(folder, cause);
    }
  }

  async get(digest: string): Promise<Float32Array | Float64Array | undefined> {
    const at = this.#known.get(digest);
    if (at === undefined) return undefined;
    const row = new ARRAYS[this.#type](this.#width);
    const bytes = new Uint8Array(row.buffer);
    await this.#handle.read(bytes, 0, bytes.length, at * this.#recordBytes + DIGEST_BYTES);
    return row;
  }

  async add(rows: readonly (readonly [digest: string, row: Float32Array | Float64Array])[]): Promise<void> {
    const records = rows.map(([digest, row]) => {
      const key = Buffer.from(digest, "hex");
      const values = Buffer.from(row.buffer, row.byteOffset, row.byteLength);
      return Buffer.concat([key, values, checkOf(key, values)]);
    });
    try {
      await this.#handle.appendFile(Buffer.concat(records));
    } catch (cause) {
      throw storeError(this.#path, cause);
    }
    for (const [digest] of rows) this.#known.set(digest, this.#known.size);
  }

  /** Leaves the file for the next one. */
  async close(): Promise<void> {
    await this.#handle.close();
    await releaseFile(this.#path, this.#files).catch(() => {});
  }

  get #recordBytes(): number {
    return DIGEST_BYTES + this.#width * ARRAYS[this.#type].BYTES_PER_ELEMENT + CHECK_BYTES;
  }

  /** Up to the first record that is not whole; what follows is dropped. */
  async #readExisting(): Promise<void> {
    const record = Buffer.alloc(this.#recordBytes);
    let at = 0;
    for (;;) {
      const { bytesRead } = await this.#handle.read(record, 0, record.length, at * record.length);
      const [key, values] = [record.subarray(0, DIGEST_BYTES), record.subarray(DIGEST_BYTES, -CHECK_BYTES)];
      const isWhole = bytesRead === record.length && checkOf(key, values).equals(record.subarray(-CHECK_BYTES));
      const digest = key.toString("hex");
      // A digest that is there already would throw the counting out.
      if (!isWhole || this.#known.has(digest)) break;
      this.#known.set(digest, at++);
    }
    await this.#handle.truncate(at * record.length);
  }
}

export type RowType = "float32" | "float64";
const ARRAYS = { float32: Float32Array, float64: Float64Array } as const;

const checkOf = (key: Uint8Array, values: Uint8Array): Buffer =>
  createHash("sha256").update(key).update(values).digest().subarray(0, CHECK_BYTES);

const ADVICE = "Make room there, set FEMO_CACHE to another folder, or pass --no-cache.";
const storeError = (path: string, cause: unknown) => keepingError(path, "what was computed", cause, ADVICE);
