import type { BigIntStats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { FemoError } from "../../errors.js";
import { type ByteSource, checkRange } from "../../weights/byte-source.js";

/** One system call reads at most this much: the kernel's own limit is just below 2 GiB. */
const CHUNK_BYTES = 2 ** 30;

/**
 * Opens a file on disk. Symbolic links are followed.
 * @param name in messages, if not the path as given
 * @throws FemoError E_FILE if there is no such file, it is not a regular file, or it may not be read
 */
export async function openFile(path: string, name = path): Promise<ByteSource> {
  let handle: FileHandle | undefined;
  let stats: BigIntStats;
  try {
    // Asked first, because opening a pipe waits for somebody to write into it.
    if (!(await stat(path)).isFile()) {
      throw new FemoError("E_FILE", `${name}: expected a file, found a folder or a device. Give the path of a file.`);
    }
    handle = await open(path, "r");
    stats = await handle.stat({ bigint: true });
  } catch (cause) {
    await handle?.close();
    throw fileError(name, cause);
  }
  const file = handle;
  const size = Number(stats.size);
  let closing: Promise<void> | undefined;
  return {
    name,
    size,
    fingerprint: fingerprintOf(stats),
    async read(start, end) {
      if (closing) throw new FemoError("E_FILE", `${name}: read after it was closed. Open it again.`);
      checkRange(name, size, start, end);
      try {
        const bytes = new Uint8Array(end - start);
        for (let done = 0; done < bytes.length; ) {
          const { bytesRead } = await file.read(bytes, done, Math.min(bytes.length - done, CHUNK_BYTES), start + done);
          if (bytesRead === 0) {
            throw new FemoError(
              "E_FILE",
              `${name}: had ${size} bytes when it was opened and now ends at ${start + done}. ` +
                "Wait until nothing writes to it any more, or download it again.",
            );
          }
          done += bytesRead;
        }
        return bytes;
      } catch (cause) {
        throw fileError(name, cause);
      }
    },
    close() {
      closing ??= file.close();
      return closing;
    },
  };
}

/** See `ByteSource.fingerprint`. */
export const fingerprintOf = ({ size, mtimeNs, ino }: BigIntStats): string => `${size}:${mtimeNs}:${ino}`;

const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: "no such file. Check the path, or download the file.",
  ENOTDIR: "no such file: a part of the path is not a folder. Check the path.",
  EACCES: "may not be read. Change its permissions.",
  EPERM: "may not be read. Change its permissions.",
  EISDIR: "expected a file, found a folder. Give the path of a file.",
  ELOOP: "its symbolic links go round in a circle. Repair them, or download the file again.",
  EMFILE: "too many files are open. Close some, or raise the limit (ulimit -n).",
  ENAMETOOLONG: "the path is too long. Check it.",
  ERR_INVALID_ARG_VALUE: "the path has a character that no path may have. Check it.",
};

/** The code of a failed file operation, such as "ENOENT"; "" if it has none. */
export const codeOf = (cause: unknown): string => (cause instanceof Error && "code" in cause ? String(cause.code) : "");

/** True if a file operation failed because there is nothing at its path. */
export const isMissing = (cause: unknown): boolean => ["ENOENT", "ENOTDIR"].includes(codeOf(cause));

/** What a failed file operation means, in a message that names the path. */
export function fileError(path: string, cause: unknown): FemoError {
  if (cause instanceof FemoError) return cause;
  const advice =
    ADVICE[codeOf(cause)] ??
    `cannot be read: ${cause instanceof Error ? cause.message : String(cause)}. Check the disk.`;
  return new FemoError("E_FILE", `${path}: ${advice}`, { cause });
}
