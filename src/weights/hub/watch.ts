import { FemoError } from "../../errors.js";
import { TransientError } from "./retry.js";

/** One exchange with a server: ends when the caller aborts it, and when the server is silent for too long. */
export class Watch {
  readonly #name: string;
  readonly #timeoutMs: number;
  readonly #asked: AbortSignal | undefined;
  readonly #controller = new AbortController();
  readonly #abort = () => this.#controller.abort();

  /**
   * @param name of what is asked for, in messages
   * @param asked the caller's signal
   */
  constructor(name: string, timeoutMs: number, asked: AbortSignal | undefined) {
    asked?.throwIfAborted();
    this.#name = name;
    this.#timeoutMs = timeoutMs;
    this.#asked = asked;
    asked?.addEventListener("abort", this.#abort, { once: true });
  }

  /** For the request itself. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * What the server says next.
   * @throws TransientError if the connection fails or nothing comes; the caller's reason if it has aborted
   */
  async soon<T>(word: Promise<T>): Promise<T> {
    const timer = setTimeout(this.#abort, this.#timeoutMs);
    try {
      return await word;
    } catch (cause) {
      this.#asked?.throwIfAborted();
      if (cause instanceof FemoError) throw cause;
      const problem = this.signal.aborted
        ? `nothing came for ${this.#timeoutMs / 1000} s`
        : `the connection failed (${reasonOf(cause)})`;
      const advice = "Check the network, then try again: what is there already is kept.";
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

/** Why `fetch` failed: undici says "fetch failed" and keeps the reason in the cause. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (!(cause instanceof Error)) return String(cause);
  return "code" in cause ? String(cause.code) : cause.message;
}
