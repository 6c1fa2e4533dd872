import { durationText } from "./duration.js";

export interface ProgressOptions {
  /** Default: standard error. */
  readonly stream?: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number };
  /** Milliseconds from one line to the next where there is no terminal. Default 10 000. */
  readonly everyMs?: number;
}

/** How far a long work is: on a terminal one line that is written again and again, elsewhere a line now and then. */
export interface Progress {
  /** @param done share of the work, 0 .. 1 */
  show(text: string, done: number): void;
  clear(): void;
}

/** Progress on standard error; none if `quiet`. */
export function progressLine(
  quiet = false,
  { stream = process.stderr, everyMs = 10_000 }: ProgressOptions = {},
): Progress {
  if (quiet) return { show() {}, clear() {} };
  let begun: { at: number; done: number } | undefined; // a download may go on where another stopped
  let before = 0;
  const lineOf = (text: string, done: number): string => {
    const now = performance.now();
    if (!begun || done < before) begun = { at: now, done }; // less than before is of another work
    before = done;
    const rate = (done - begun.done) / (now - begun.at);
    const left = rate > 0 ? `  ${durationText((1 - done) / rate / 1000)} left` : "";
    return `${Math.floor(100 * done)} %  ${text}${left}`;
  };
  if (stream.isTTY) {
    return {
      show: (text, done) => stream.write(`\r${lineOf(text, done).slice(0, (stream.columns ?? 80) - 1)}\x1b[K`),
      clear: () => stream.write("\r\x1b[K"),
    };
  }
  let last = performance.now();
  return {
    show(text, done) {
      const line = lineOf(text, done);
      if (performance.now() - last < everyMs) return;
      last = performance.now();
      stream.write(`${line}\n`);
    },
    clear() {},
  };
}
