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
  const remaining = remainingTime();
  const lineOf = (text: string, done: number): string => {
    const seconds = remaining(done);
    const left = seconds === undefined ? "" : `  ${durationText(seconds)} left`;
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

/**
 * Seconds that a work still takes, by how fast it went over the last half of the time or more: it may have begun slower, or have
 * gone on where another stopped. Less done than before is another work.
 */
function remainingTime(): (done: number) => number | undefined {
  interface Mark {
    readonly at: number;
    readonly done: number;
  }
  let marks: { first: Mark; from: Mark; next: Mark } | undefined;
  let before = 0;
  return (done) => {
    const now: Mark = { at: performance.now(), done };
    if (!marks || done < before) marks = { first: now, from: now, next: now };
    before = done;
    const rate = (done - marks.from.done) / (now.at - marks.from.at);
    if (now.at - marks.next.at > (now.at - marks.first.at) / 2) marks = { ...marks, from: marks.next, next: now };
    return rate > 0 ? (1 - done) / rate / 1000 : undefined;
  };
}
