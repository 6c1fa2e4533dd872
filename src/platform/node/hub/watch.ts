import { FemoError } from "../../../errors.js";
import { TransientError } from "../../hub/retry.js";

/** One exchange with a server: ends when the caller aborts it, and when the server is silent for too long. */
export class Watch {
  readonly #name: string;
  readonly #timeoutMs: number;
  readonly #asked: AbortSignal | undefined;
  readonly #places: string;
  readonly #controller = new AbortController();
  readonly #abort = () => this.#controller.abort();

  /**
   * @param name of what is asked for, in messages
   * @param asked the caller's signal
   * @param places where the fault may be, in messages
   */
  constructor(name: string, timeoutMs: number, asked: AbortSignal | undefined, places = "the network") {
    asked?.throwIfAborted();
    this.#name = name;
    this.#timeoutMs = timeoutMs;
    this.#asked = asked;
    this.#places = places;
    asked?.addEventListener("abort", this.#abort, { once: true });
  }

  /** For the request itself. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * What the server says next.
   * @throws TransientError if the connection fails or nothing comes; FemoError E_NETWORK if the server's certificate is
   *   not trusted; the caller's reason if it has aborted
   */
  async soon<T>(word: Promise<T>): Promise<T> {
    const timer = setTimeout(this.#abort, this.#timeoutMs);
    try {
      return await word;
    } catch (cause) {
      this.#asked?.throwIfAborted();
      if (cause instanceof FemoError) throw cause;
      const reason = reasonOf(cause);
      if (!this.signal.aborted && CERTIFICATE.test(reason)) {
        throw new FemoError(
          "E_NETWORK",
          `${this.#name}: the server's certificate is not trusted (${reason}). If a proxy of your network signs for it, set ` +
            "NODE_EXTRA_CA_CERTS to the file of its authority's certificate (PEM); otherwise check the address and the clock.",
          { cause },
        );
      }
      const problem = this.signal.aborted
        ? `nothing came for ${this.#timeoutMs / 1000} s`
        : `the connection failed (${reason})`;
      const advice = `Check ${this.#places}, then try again: what is there already is kept.`;
      throw new TransientError(`${this.#name}: ${problem}. ${advice}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  /** The body as it arrives. Reading to the end or leaving early ends the exchange. */
  async *chunks(response: Response): AsyncGenerator<Uint8Array, void> {
    const reader = response.body?.getReader();
    try {
      while (reader) {
        const { done, value } = await this.soon(reader.read());
        if (done) return;
        yield value;
      }
    } finally {
      await reader?.cancel().catch(() => {}); // nobody waits for the rest
      this.end();
    }
  }

  end(): void {
    this.#asked?.removeEventListener("abort", this.#abort);
  }
}

/** Codes of OpenSSL and of Node for a certificate that does not hold: another attempt would see the same one. */
const CERTIFICATE =
  /CERT|UNABLE_TO_(?:GET|VERIFY|DECRYPT|DECODE)|^(?:HOSTNAME_MISMATCH|INVALID_(?:CA|PURPOSE)|PATH_LENGTH_EXCEEDED)$/;

/** Why `fetch` failed: undici says "fetch failed" and keeps the reason in the cause of its error, or in that of the cause. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.cause instanceof Error) return reasonOf(error.cause);
  // Of a proxy that refuses, undici's code says less than its words.
  const code = "code" in error && typeof error.code === "string" ? error.code : "UND_ERR_ABORTED";
  return code === "UND_ERR_ABORTED" ? error.message : code;
}
