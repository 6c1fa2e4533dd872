/** How much of a latent is signal and how much is noise: x = `signal`·x₀ + `noise`·ε. */
export interface Level {
  /** √ᾱ of a diffusion, 1 − σ of a flow. */
  readonly signal: number;
  /** √(1 − ᾱ) of a diffusion, σ of a flow. */
  readonly noise: number;
  /** signal², before the root was taken. */
  readonly signalVariance: number;
  /** noise², likewise. */
  readonly noiseVariance: number;
  /** λ = log(signal/noise), half the logarithm of the signal-to-noise ratio: −∞ of mere noise, ∞ of none. */
  readonly lambda: number;
}

/** A level of a diffusion, whose variances sum to 1.  ᾱ in 0 … 1 */
export const diffusionLevel = (alphaBar: number): Level => ({
  signal: Math.sqrt(alphaBar),
  noise: Math.sqrt(1 - alphaBar),
  signalVariance: alphaBar,
  noiseVariance: 1 - alphaBar,
  lambda: (Math.log(alphaBar) - Math.log1p(-alphaBar)) / 2,
});

/**
 * A level on the straight line from x₀ to ε (arXiv 2209.03003): x = (1 − σ)·x₀ + σ·ε.
 * @param sigma in 0 … 1, or above by what float32 rounds, which leaves no signal either
 */
export function flowLevel(sigma: number): Level {
  const signal = Math.max(0, 1 - sigma);
  const lambda = Math.log1p(-Math.min(1, sigma)) - Math.log(sigma);
  return { signal, noise: sigma, signalVariance: signal ** 2, noiseVariance: sigma ** 2, lambda };
}

/**
 * A level of a diffusion in which the signal keeps its strength and noise is added: x = x₀ + σ·ε, as Euler's method has it.
 * @param sigma noise/signal of the diffusion's own level, ≥ 0
 */
export const sigmaLevel = (sigma: number): Level => ({
  signal: 1,
  noise: sigma,
  signalVariance: 1,
  noiseVariance: sigma ** 2,
  lambda: -Math.log(sigma),
});

/** From where to where a step goes. */
export interface Leap {
  /** Of the latent as the step, and the model in it, sees it. */
  readonly from: Level;
  /** Where it lands. */
  readonly to: Level;
}

/** From each level to the next.  [levels − 1] */
export const leapsThrough = (levels: readonly Level[]): Leap[] =>
  levels.slice(0, -1).map((from, i) => ({ from, to: levels[i + 1] as Level }));

export const isSameLevel = (a: Level, b: Level): boolean => a.signal === b.signal && a.noise === b.noise;

/**
 * Weights of x and x₀ in a step that goes straight on: x′ = (noise′/noise)·x + (signal′ − signal·noise′/noise)·x₀. Of a
 * diffusion it is DDIM's, of a flow Euler's.
 */
export function straightWeights({ from, to }: Leap): { x: number; x0: number } {
  const x = noiseRatio(from, to);
  return { x, x0: to.signal - from.signal * x };
}

/** What noise is left of that at `from`. */
export const noiseRatio = (from: Level, to: Level): number => Math.sqrt(to.noiseVariance / from.noiseVariance);
