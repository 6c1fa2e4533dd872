/** A deterministic sampler with everything but the latent decided beforehand; it holds no state of a run. */
export interface Sampler {
  /** Model timesteps in sampling order, noisiest first. */
  readonly timesteps: readonly number[];

  /** Scale of the initial noise: the first latent is this times a standard normal sample. */
  readonly initNoiseSigma: number;

  /**
   * Latent at step i + 1 from latent and model output at step i. Pure: any step can be walked again.
   *
   * @param i index into `timesteps`
   * @param latent x at `timesteps[i]`, any layout, latent scale; not changed
   * @param modelOutput what the model predicts for it, same length and layout, guidance applied; not changed
   * @returns a new array; for the last i, the finished latent
   * @throws FemoError E_OPTION if i is out of range or the lengths differ
   */
  step(i: number, latent: Float32Array, modelOutput: Float32Array): Float32Array;
}
