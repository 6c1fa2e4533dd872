import { FemoError } from "../../../errors.js";
import { MAX_TEXT_BYTES } from "../../../weights/folder-source.js";
import { parseJson } from "../../../weights/json.js";
import type { Answer } from "../../hub/answer.js";
import { isTransient, type RetryPolicy, retry, retryAfterMs, TransientError } from "../../hub/retry.js";
import { fetchThrough, placesToCheck } from "./proxy.js";
import { explainRefusal, type Wanted } from "./refusal.js";
import type { HubSettings } from "./settings.js";
import { Watch } from "./watch.js";

const ADVICE = "Is HF_ENDPOINT the address of a Hub?";
const MAX_REDIRECTS = 10;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

export interface ClientOptions {
  readonly settings: HubSettings;
  readonly policy: RetryPolicy;
  readonly signal?: AbortSignal | undefined;
}

/** GET requests to the Hub. The token goes to the endpoint's own origin and nowhere else, whatever redirects say. */
export class HubClient {
  readonly advice = ADVICE;
  readonly settings: HubSettings;
  readonly policy: RetryPolicy;
  readonly signal: AbortSignal | undefined;

  constructor({ settings, policy, signal }: ClientOptions) {
    this.settings = settings;
    this.policy = policy;
    this.signal = signal;
  }

  /** The address of what the Hub has at a path, which starts with a slash. */
  url(path: string): URL {
    return new URL(this.settings.endpoint + path);
  }

  /**
   * A JSON document and the address of its next page, with retries.
   * @throws FemoError as `get`, and E_NETWORK if it is no JSON
   */
  async json(url: URL, wanted: Wanted): Promise<{ value: unknown; next: URL | undefined }> {
    return retry(
      async () => {
        const answer = await this.get(url, wanted);
        const text = await readText(answer.chunks(), shown(url));
        const next = nextPage(answer.headers.get("link"), url);
        return { value: parseJson(text, shown(url), "E_NETWORK", ADVICE), next };
      },
      this.policy,
      this.signal,
    );
  }

  /**
   * One request, redirects followed, without retries. If it has a range, the answer may be 206, 200 or 416.
   * @throws TransientError if another attempt may succeed; FemoError E_ACCESS, E_FILE or E_NETWORK if not
   */
  async get(url: URL, wanted: Wanted, headers: Readonly<Record<string, string>> = {}): Promise<Answer> {
    const { timeoutMs, proxies } = this.settings;
    const watch = new Watch(shown(url), timeoutMs, this.signal, placesToCheck(proxies, url));
    try {
      const response = await watch.soon(this.#follow(url, headers, watch.signal));
      const discard = async () => {
        await response.body?.cancel().catch(() => {}); // nobody waits for it
        watch.end();
      };
      if (!(headers.range === undefined ? [200] : [200, 206, 416]).includes(response.status)) {
        await discard();
        throw this.#refusal(response, wanted);
      }
      return {
        status: response.status,
        headers: response.headers,
        chunks: () => watch.chunks(response),
        discard,
      };
    } catch (error) {
      watch.end();
      throw error;
    }
  }

  #refusal(response: Response, wanted: Wanted): FemoError {
    const from = new URL(response.url);
    const away = from.origin !== new URL(this.settings.endpoint).origin;
    const retryAfter = retryAfterMs(response.headers.get("retry-after"));
    // A store of files that the Hub redirects to knows no accounts: its addresses expire, and the next attempt gets a
    // new one. A mirror that redirects leads to another Hub, which says by this header why it refuses.
    if (away && wanted.file !== undefined && !response.headers.has("x-error-code")) {
      const message = `${shown(from)}, to which ${this.settings.endpoint} redirects, answered ${response.status}. Try again later.`;
      return new TransientError(message, { retryAfterMs: retryAfter });
    }
    const refusal = explainRefusal(response, wanted, this.settings, away ? from.origin : undefined);
    return isTransient(response.status) ? new TransientError(refusal.message, { retryAfterMs: retryAfter }) : refusal;
  }

  async #follow(start: URL, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Response> {
    const { endpoint, token } = this.settings;
    const home = new URL(endpoint).origin;
    let url = start;
    for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
      const authorization = token !== undefined && url.origin === home ? { authorization: `Bearer ${token}` } : {};
      const fetch = await fetchThrough(this.settings.proxies, url);
      const response = await fetch(url, {
        redirect: "manual",
        signal,
        // Sizes and ranges are of the file itself, not of a compressed form.
        headers: { "accept-encoding": "identity", "user-agent": "femo", ...headers, ...authorization },
      });
      const location = response.headers.get("location");
      if (!REDIRECTS.has(response.status) || location === null) return response;
      await response.body?.cancel();
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      if (!next || !/^https?:$/.test(next.protocol)) {
        throw new FemoError("E_NETWORK", `${shown(start)}: redirects to what is no web address. ${ADVICE}`);
      }
      url = next;
    }
    throw new FemoError("E_NETWORK", `${shown(start)}: more than ${MAX_REDIRECTS} redirects. ${ADVICE}`);
  }
}

/** An address as it may stand in messages: without its query, which may hold a signature. */
const shown = ({ origin, pathname }: URL): string => origin + pathname;

/** The address in a header such as `<https://...?cursor=...>; rel="next"`. */
function nextPage(link: string | null, from: URL): URL | undefined {
  const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(link ?? "")?.[1];
  if (next === undefined) return undefined;
  if (URL.canParse(next, from.href)) return new URL(next, from);
  throw new FemoError("E_NETWORK", `${shown(from)}: its next page has no web address. ${ADVICE}`);
}

async function readText(chunks: AsyncGenerator<Uint8Array, void>, name: string): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    if (bytes > MAX_TEXT_BYTES) {
      throw new FemoError("E_NETWORK", `${name}: expected at most ${MAX_TEXT_BYTES} bytes, found more.`);
    }
    parts.push(chunk);
  }
  return Buffer.concat(parts).toString("utf8");
}
