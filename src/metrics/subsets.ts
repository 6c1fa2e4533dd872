import { TorchGenerator } from "../samplers/index.js";

/** Draws some of 0 .. n - 1, each at most once, as NumPy's `RandomState(seed).choice(n, k, replace=False)`. */
export class SubsetDrawer {
  readonly #generator: TorchGenerator;

  /** @param seed 0 .. 2^32 - 1 */
  constructor(seed: number) {
    this.#generator = new TorchGenerator(seed);
  }

  draw(from: number, count: number): Uint32Array {
    const order = Uint32Array.from({ length: from }, (_, i) => i);
    for (let i = from - 1; i > 0; i--) {
      const j = this.#below(i);
      const value = order[i] as number;
      order[i] = order[j] as number;
      order[j] = value;
    }
    return order.slice(0, count);
  }

  /** 0 .. greatest, by leaving out what is above it. */
  #below(greatest: number): number {
    const mask = 2 ** (32 - Math.clz32(greatest)) - 1;
    for (;;) {
      const value = (this.#generator.word() & mask) >>> 0;
      if (value <= greatest) return value;
    }
  }
}
