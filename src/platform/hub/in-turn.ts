const running = new Map<string, Promise<unknown>>();

/**
 * Runs a task when those of the same key that were begun before are over, however they ended.
 * @throws what the task throws; the signal's reason if it was aborted before the task's turn
 */
export function inTurn<T>(key: string, signal: AbortSignal | undefined, task: () => Promise<T>): Promise<T> {
  const before = running.get(key) ?? Promise.resolve();
  const turn = unlessAborted(before, signal).then(task);
  const over = Promise.allSettled([before, turn]).finally(() => {
    if (running.get(key) === over) running.delete(key);
  });
  running.set(key, over);
  return turn;
}

/** Waits for a promise that never fails. */
async function unlessAborted(promise: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted();
  let stop = (): void => {};
  const aborted = new Promise<void>((resolve) => {
    stop = resolve;
    signal?.addEventListener("abort", stop, { once: true });
  });
  await Promise.race([promise, aborted]);
  signal?.removeEventListener("abort", stop);
  signal?.throwIfAborted();
}
