/** One line on stderr that is written again and again; nothing unless stderr is a terminal. */
export function progressLine(quiet = false): { show(text: string, done: number): void; clear(): void } {
  const { stderr } = process;
  if (quiet || !stderr.isTTY) return { show() {}, clear() {} };
  let begun: { at: number; done: number } | undefined; // a download may go on where another stopped
  return {
    show(text, done) {
      const now = performance.now();
      begun ??= { at: now, done };
      const rate = (done - begun.done) / (now - begun.at);
      const left = rate > 0 ? `  ${Math.ceil((1 - done) / rate / 1000)} s left` : "";
      const line = `${Math.floor(100 * done)} %  ${text}${left}`;
      stderr.write(`\r${line.slice(0, (stderr.columns ?? 80) - 1)}\x1b[K`);
    },
    clear: () => stderr.write("\r\x1b[K"),
  };
}
