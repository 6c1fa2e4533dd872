/** One line on stderr that is written again and again; nothing unless stderr is a terminal. */
export function progressLine(quiet = false): { show(text: string, done: number): void; clear(): void } {
  const { stderr } = process;
  if (quiet || !stderr.isTTY) return { show() {}, clear() {} };
  const start = performance.now();
  return {
    show(text, done) {
      const left = ((performance.now() - start) * (1 - done)) / Math.max(done, 1e-6) / 1000;
      const line = `${Math.floor(100 * done)} %  ${text}  ${Math.ceil(left)} s left`;
      stderr.write(`\r${line.slice(0, (stderr.columns ?? 80) - 1)}\x1b[K`);
    },
    clear: () => stderr.write("\r\x1b[K"),
  };
}
