import { FemoError } from "../../errors.js";

/** How often to try, and how long to wait in between. */
export interface RetryPolicy {
  /** Attempts in a row that bring nothing new. */
  readonly attempts: number;
  /** Wait after the first failure; it doubles with each further one. */
  readonly firstDelayMs: number;
}

export const defaultRetryPolicy: RetryPolicy = { attempts: 5, firstDelayMs: 500 };

const MAX_DELAY_MS = 30_000;
/** A server that asks for more patience than this is taken at its word: the caller is told. */
const MAX_ASKED_DELAY_MS = 300_000;

/** A failure that may pass: another attempt is worth making. */
export class TransientError extends FemoError {
  /** As long as the server asked to wait. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, options?: ErrorOptions & { retryAfterMs?: number | undefined }) {
    super("E_NETWORK", message, options);
    this.retryAfterMs = options?.retryAfterMs;
  }
}

/** Whether a server that answers so may answer otherwise in a while: time-outs, too many requests, and servers in trouble. */
export const isTransient = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** The Hub does not have what was asked for. */
export class NotFoundError extends FemoError {
  constructor(message: string) {
    super("E_FILE", message);
  }
}

/**
 * The result of the first attempt that succeeds. Attempts that fail for good, and the last, throw.
 * @param progress grows when an attempt brought something; then the count of attempts starts anew
 * @throws the signal's reason if it was aborted
 */
export async function retry<T>(
  attempt: () => Promise<T>,
  policy: RetryPolicy,
  signal?: AbortSignal,
  progress: () => number = () => 0,
): Promise<T> {
  for (let failures = 0, reached = progress(); ; ) {
    signal?.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof TransientError)) throw error;
      failures = progress() > reached ? 1 : failures + 1;
      reached = Math.max(reached, progress());
      if (failures >= policy.attempts || (error.retryAfterMs ?? 0) > MAX_ASKED_DELAY_MS) throw error;
      await sleepUnlessAborted(error.retryAfterMs ?? delayMs(failures, policy), signal);
    }
  }
}

/** Spread by up to a quarter, so that many who failed together do not come back together. */
const delayMs = (failures: number, { firstDelayMs }: RetryPolicy): number =>
  Math.min(firstDelayMs * 2 ** (failures - 1), MAX_DELAY_MS) * (0.75 + 0.5 * Math.random());

/** @throws the signal's reason as soon as it is aborted */
function sleepUnlessAborted(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** The header in milliseconds: seconds, or a date. */
export function retryAfterMs(header: string | null): number | undefined {
  if (header === null) return undefined;
  const ms = /^\s*\d+\s*$/.test(header) ? 1000 * Number(header) : Date.parse(header) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
