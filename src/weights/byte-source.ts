import { FemoError, type FemoErrorCode } from "../errors.js";

/** Bytes that can be read at any place: a file on disk, a buffer, a resource on the web. */
export interface ByteSource {
  /** Path or address, as it should stand in messages. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /** Of a file on disk: changes when somebody writes to it, or puts another in its place. */
  readonly fingerprint?: string;
  /** The same bytes, where there are no paths: in a browser. */
  readonly blob?: Blob;
  /**
   * Exactly the bytes `[start, end)`. They belong to the caller.
   * @throws FemoError E_FILE if the range is not inside the source, or the bytes cannot be had
   */
  read(start: number, end: number): Promise<Uint8Array>;
  /** Frees what the source holds. Closing twice is allowed; reading afterwards is not. */
  close(): Promise<void>;
}

/** @throws FemoError E_FILE unless `0 <= start <= end <= size` in whole bytes */
export function checkRange(name: string, size: number, start: number, end: number): void {
  if (Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0 && start <= end && end <= size) return;
  throw new FemoError(
    "E_FILE",
    `${name}: bytes ${start} to ${end} were asked for, but the file has ${size}. It may be truncated: download it again.`,
  );
}

/** A buffer as a source. The bytes are not copied until they are read. */
export function memoryByteSource(name: string, bytes: Uint8Array): ByteSource {
  let closed = false;
  return {
    name,
    size: bytes.byteLength,
    async read(start, end) {
      if (closed) throw new FemoError("E_FILE", `${name}: read after it was closed. Open it again.`);
      checkRange(name, bytes.byteLength, start, end);
      return Uint8Array.from(bytes.subarray(start, end));
    },
    async close() {
      closed = true;
    },
  };
}

/** A blob as a source, such as a file that the user picked: read where it lies, a range at a time. */
export function blobByteSource(name: string, blob: Blob, fingerprint?: string): ByteSource {
  let closed = false;
  return {
    name,
    size: blob.size,
    blob,
    ...(fingerprint !== undefined && { fingerprint }),
    async read(start, end) {
      if (closed) throw new FemoError("E_FILE", `${name}: read after it was closed. Open it again.`);
      checkRange(name, blob.size, start, end);
      try {
        return new Uint8Array(await blob.slice(start, end).arrayBuffer());
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new FemoError("E_FILE", `${name}: cannot be read any more: ${reason}. Has it changed? Open it again.`, {
          cause,
        });
      }
    },
    async close() {
      closed = true;
    },
  };
}

/** What there is to know of a file besides its bytes. */
export type FileState = Pick<ByteSource, "fingerprint" | "blob">;

/**
 * All of a source as UTF-8 text, without its byte order mark.
 * @param maxBytes longer sources are refused before anything is read
 * @throws FemoError `code` if the source is longer or is not UTF-8
 */
export async function readUtf8(source: ByteSource, maxBytes: number, code: FemoErrorCode = "E_FILE"): Promise<string> {
  if (source.size > maxBytes) {
    throw new FemoError(
      code,
      `${source.name}: expected a text of at most ${maxBytes} bytes, found ${source.size}. Is it the right file?`,
    );
  }
  const bytes = await source.read(0, source.size);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new FemoError(code, `${source.name}: expected UTF-8 text, found other bytes. Save it as UTF-8.`, { cause });
  }
}
