/** Strings to find at a place of a text: all that stand there, the shorter ones first. */
export class Trie {
  /** (node, UTF-16 unit) to the node behind it; one map, since a map for each node takes ten times the memory. */
  readonly #next = new Map<number, number>();
  /** Of each node the value of the string that ends there, or -1. */
  readonly #values: number[] = [-1];

  /** @param entries strings, none of them empty, with their values, whole numbers from 0; of equal ones the last counts */
  constructor(entries: Iterable<readonly [text: string, value: number]>) {
    for (const [text, value] of entries) {
      let node = 0;
      for (let i = 0; i < text.length; i++) {
        const key = node * UNITS + text.charCodeAt(i);
        let next = this.#next.get(key);
        if (next === undefined) {
          next = this.#values.push(-1) - 1;
          this.#next.set(key, next);
        }
        node = next;
      }
      this.#values[node] = value;
    }
  }

  /** Calls `found` with the value and the end of each string that stands at a place of the text. */
  at(text: string, start: number, found: (value: number, end: number) => void): void {
    let node: number | undefined = 0;
    for (let i = start; i < text.length; i++) {
      node = this.#next.get(node * UNITS + text.charCodeAt(i));
      if (node === undefined) return;
      const value = this.#values[node] as number;
      if (value >= 0) found(value, i + 1);
    }
  }
}

const UNITS = 0x10000;
