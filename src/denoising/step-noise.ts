/**
 * The standard normal samples that an image's sampler takes, drawn once for each step that takes one, in their order. A step
 * that is walked again gets the same.
 */
export class StepNoise {
  readonly #draw: (() => Float32Array) | undefined;
  readonly #drawn = new Map<number, Float32Array>();

  /** @param draw a fresh sample; not needed by a sampler that never draws */
  constructor(draw?: () => Float32Array) {
    this.#draw = draw;
  }

  at(step: number): Float32Array | undefined {
    const known = this.#drawn.get(step);
    if (known || !this.#draw) return known;
    const noise = this.#draw();
    this.#drawn.set(step, noise);
    return noise;
  }

  /** The steps so far are not walked again. */
  forget(): void {
    this.#drawn.clear();
  }
}
