/** Joins symbols: of all neighbours that may be joined, those with the least rank first, and of equal ones the left ones. */
export class BytePairs {
  /** Key of two ids to the rank of their merge. */
  readonly #ranks = new Map<number, number>();
  /** What the merge of each rank gives. */
  readonly #merged: Int32Array;

  /** @param merges by rank: the ids of two symbols and of what they are together. Of equal pairs the last counts. */
  constructor(merges: readonly (readonly [left: number, right: number, merged: number])[]) {
    this.#merged = Int32Array.from(merges, ([, , merged]) => merged);
    for (const [rank, [left, right]] of merges.entries()) this.#ranks.set(pairKey(left, right), rank);
  }

  /** @param symbols ids of a word's symbols; they are overwritten */
  merge(symbols: Int32Array): number[] {
    const count = symbols.length;
    // The symbols that are left form a chain; the one that was joined to the one before it is out of it.
    const next = Int32Array.from(symbols, (_, i) => i + 1);
    const previous = Int32Array.from(symbols, (_, i) => i - 1);
    const queue: number[] = [];
    const rankAt = (at: number): number | undefined => {
      const right = next[at] as number;
      return right < count ? this.#ranks.get(pairKey(symbols[at] as number, symbols[right] as number)) : undefined;
    };
    const look = (at: number): void => {
      const rank = rankAt(at);
      if (rank !== undefined) push(queue, rank * PLACES + at);
    };
    for (let at = 0; at < count; at++) look(at);
    while (queue.length > 0) {
      const entry = pop(queue);
      const rank = Math.floor(entry / PLACES);
      const at = entry % PLACES;
      // An entry is stale if one of its two symbols has become another in the meantime.
      if (symbols[at] === GONE || rankAt(at) !== rank) continue;
      const right = next[at] as number;
      const after = next[right] as number;
      symbols[at] = this.#merged[rank] as number;
      symbols[right] = GONE;
      next[at] = after;
      if (after < count) previous[after] = at;
      if ((previous[at] as number) >= 0) look(previous[at] as number);
      look(at);
    }
    return [...symbols.filter((id) => id !== GONE)];
  }
}

const GONE = -1;
/** Ids, ranks and places are smaller than 2^22 and 2^30, so that two of them make a whole number below 2^53. */
const IDS = 2 ** 22;
const PLACES = 2 ** 30;

const pairKey = (left: number, right: number): number => left * IDS + right;

/** A binary heap with the least number at its top. */
function push(heap: number[], value: number): void {
  let at = heap.push(value) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if ((heap[parent] as number) <= value) break;
    heap[at] = heap[parent] as number;
    at = parent;
  }
  heap[at] = value;
}

function pop(heap: number[]): number {
  const top = heap[0] as number;
  const value = heap.pop() as number;
  if (heap.length === 0) return top;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && (heap[child + 1] as number) < (heap[child] as number)) child++;
    if ((heap[child] as number) >= value) break;
    heap[at] = heap[child] as number;
    at = child;
  }
  heap[at] = value;
  return top;
}
