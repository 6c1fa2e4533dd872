import { type FileHandle, open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { FemoError } from "../../../errors.js";
import { defaultRetryPolicy, type RetryPolicy, retry, TransientError } from "../../hub/retry.js";
import { claimFile, type OwnedFiles, releaseFile } from "../owned-files.js";
import { writeError } from "./files.js";
import { fetchThrough, placesToCheck } from "./proxy.js";
import { type Environment, hubSettings } from "./settings.js";
import { Watch } from "./watch.js";

export interface AddressOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes that are there, and how many there will be. */
  readonly onBytes?: (done: number, total: number) => void;
  readonly env?: Environment | undefined;
  readonly retry?: Partial<RetryPolicy> | undefined;
}

/**
 * Brings a file from a plain address, with the proxies, time-outs and retries of downloads from the Hub, but without its
 * token. What an earlier download has left is gone on from.
 * @param path where it is put once `isRight` says so
 * @param stem of the name of the file under way, without a dot
 * @param isRight looks at the whole file
 * @throws FemoError E_NETWORK if it cannot be reached, E_FILE if it is not there or `isRight` says no; the signal's reason
 */
export async function downloadAddress(
  address: string,
  path: string,
  stem: string,
  isRight: (path: string) => Promise<boolean>,
  options: AddressOptions = {},
): Promise<void> {
  const { signal, onBytes, env } = options;
  const { timeoutMs, proxies, offline } = await hubSettings(env);
  if (offline) {
    throw new FemoError(
      "E_FILE",
      `${address}: ${offline} forbids to download it. Unset it once, or get the file by hand.`,
    );
  }
  const url = new URL(address);
  const files: OwnedFiles = { folder: dirname(path), stem, ending: "incomplete" };
  const own = await claimFile(files).catch((cause) => {
    throw writeError(path, cause);
  });
  let done = 0;
  const attempt = async (file: FileHandle): Promise<void> => {
    const watch = new Watch(address, timeoutMs, signal, placesToCheck(proxies, url));
    try {
      const fetch = await fetchThrough(proxies, url);
      done = (await file.stat()).size;
      const headers: Record<string, string> = { "accept-encoding": "identity", "user-agent": "femo" };
      if (done > 0) headers.range = `bytes=${done}-`;
      const response = await watch.soon(fetch(url, { signal: watch.signal, headers }));
      const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
      const resumes = response.status === 206 && Number(start) === done;
      if (!resumes) {
        await file.truncate(0);
        const was = done;
        done = 0;
        if (response.status === 416 && was > 0) throw new TransientError(`${address}: starting over.`);
      }
      if (!resumes && response.status !== 200) {
        await response.body?.cancel().catch(() => {});
        throw refusal(address, response.status);
      }
      const length = response.headers.get("content-length");
      const total = length === null ? undefined : done + Number(length);
      for await (const chunk of watch.chunks(response)) {
        await file.appendFile(chunk).catch((cause) => {
          throw writeError(own, cause);
        });
        done += chunk.length;
        onBytes?.(done, total ?? done);
      }
      if (total !== undefined && done < total) {
        throw new TransientError(`${address}: the server stopped after ${done} of ${total} bytes. Try again.`);
      }
    } finally {
      watch.end();
    }
  };
  let right = false;
  try {
    const file = await open(own, "a+");
    try {
      await retry(
        () => attempt(file),
        { ...defaultRetryPolicy, ...options.retry },
        signal,
        () => done,
      );
      right = await isRight(own);
      if (!right) await file.truncate(0);
      else await file.datasync();
    } finally {
      await file.close();
    }
    if (right) await rename(own, path);
  } finally {
    if (!right) await releaseFile(own, files).catch(() => {});
  }
  if (!right) {
    throw new FemoError(
      "E_FILE",
      `${address}: what was downloaded is not the file that was published: its SHA-256 is another. Does a proxy change it? ` +
        "Try again, or get the file by hand.",
    );
  }
}

function refusal(address: string, status: number): FemoError {
  if (status === 408 || status === 429 || status >= 500) {
    return new TransientError(`${address}: the server answered ${status}. Try again later.`);
  }
  if (status === 401 || status === 403) {
    return new FemoError("E_ACCESS", `${address}: the server refuses (${status}). Get the file by hand.`);
  }
  return new FemoError(
    "E_FILE",
    `${address}: the server answered ${status}: the file is there no more. Get it elsewhere.`,
  );
}
