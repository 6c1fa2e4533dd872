import { FemoError } from "../../errors.js";
import { MAX_TEXT_BYTES } from "../../weights/folder-source.js";
import type { Answer } from "../hub/answer.js";
import { isTransient, retryAfterMs, TransientError } from "../hub/retry.js";

/** A server that sends nothing for so long is taken for dead. */
const SILENCE_MS = 30_000;

export interface GetOptions {
  readonly method?: "GET" | "HEAD";
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  readonly cache?: RequestCache;
  /** Statuses beside 200 that are no failure. */
  readonly allow?: readonly number[];
  /** What to do where access is refused, a sentence. */
  readonly onRefusal?: string | undefined;
}

/**
 * One request, without retries.
 * @throws TransientError if another attempt may succeed; FemoError E_NETWORK, E_ACCESS or E_FILE if not; the signal's reason
 *   if it was aborted
 */
export async function get(
  url: URL,
  { method = "GET", headers = {}, signal, cache, allow = [], onRefusal = "" }: GetOptions,
): Promise<Answer> {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const abort = (): void => controller.abort();
  signal?.addEventListener("abort", abort, { once: true });
  const end = (): void => signal?.removeEventListener("abort", abort);
  const name = url.origin + url.pathname;
  const soon = async <T>(word: Promise<T>): Promise<T> => {
    const timer = setTimeout(abort, SILENCE_MS);
    try {
      return await word;
    } catch (cause) {
      signal?.throwIfAborted();
      throw new TransientError(`${name}: ${problemOf(url, cause, controller.signal)}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  };
  try {
    const response = await soon(fetch(url, { method, headers, signal: controller.signal, ...(cache && { cache }) }));
    if (response.status !== 200 && !allow.includes(response.status)) {
      await response.body?.cancel().catch(() => {});
      throw refusalOf(name, response, onRefusal);
    }
    return {
      status: response.status,
      headers: response.headers,
      async *chunks() {
        const reader = response.body?.getReader();
        try {
          while (reader) {
            const { done, value } = await soon(reader.read());
            if (done) return;
            yield value;
          }
        } finally {
          await reader?.cancel().catch(() => {});
          end();
        }
      },
      async discard() {
        await response.body?.cancel().catch(() => {});
        end();
      },
    };
  } catch (error) {
    end();
    throw error;
  }
}

function problemOf(url: URL, cause: unknown, silence: AbortSignal): string {
  if (silence.aborted)
    return `nothing came for ${SILENCE_MS / 1000} s. Check the network, then try again: what is there is kept.`;
  const reason = cause instanceof Error ? cause.message : String(cause);
  const other =
    url.origin === location.origin
      ? ""
      : ", and that this server allows other pages to read it (Access-Control-Allow-Origin)";
  return `the connection failed (${reason}). Check the network${other}; then try again: what is there is kept.`;
}

function refusalOf(name: string, { status, headers }: Response, onRefusal: string): FemoError {
  if (isTransient(status)) {
    return new TransientError(`${name}: the server answered ${status}. Try again later: what is there is kept.`, {
      retryAfterMs: retryAfterMs(headers.get("retry-after")),
    });
  }
  if (status === 401 || status === 403)
    return new FemoError("E_ACCESS", `${name}: the server refuses access (${status}). ${onRefusal}`.trim());
  if (status === 404) return new FemoError("E_FILE", `${name}: no such file. Check the address.`);
  return new FemoError("E_NETWORK", `${name}: the server answered ${status}. Check the address.`);
}

export async function readText(answer: Answer): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of answer.chunks()) {
    bytes += chunk.length;
    if (bytes > MAX_TEXT_BYTES)
      throw new FemoError("E_NETWORK", `expected at most ${MAX_TEXT_BYTES} bytes of text, found more`);
    parts.push(chunk);
  }
  return new Blob(parts as BlobPart[]).text();
}
