import { expect } from "vitest";
import { type Sampler, type SamplerState, TorchGenerator } from "../../src/samplers/index.js";

/** Largest deviation, relative to the expected value where that is above 1. */
export function relativeError(found: Float32Array, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length);
  return Math.max(...found.map((v, k) => Math.abs(v - (expected[k] ?? 0)) / Math.max(1, Math.abs(expected[k] ?? 0))));
}

/** The fake model of the goldens: m = 0.5·sin(3·x + i) + 0.3·cos(k). */
export const fakeModel = (x: Float32Array, i: number): Float32Array =>
  x.map((v, k) => 0.5 * Math.sin(3 * v + i) + 0.3 * Math.cos(k));

/** The first latent of the goldens, x_k = 1.5·sin(k + 1). */
export const firstLatent = (length: number): Float32Array =>
  Float32Array.from({ length }, (_, k) => 1.5 * Math.sin(k + 1));

/** ᾱ_t of the linear chain that all schedulers have by default; 1 beyond its end. */
export function alphaBar(t: number | undefined): number {
  let product = 1;
  for (let s = 0; s <= (t ?? -1); s++) product *= 1 - (1e-4 + ((0.02 - 1e-4) * s) / 999);
  return product;
}

/** Every state from the first latent on, for steps 0 … `end` − 1.  [end + 1] */
export function walk(
  sampler: Sampler,
  first: Float32Array,
  model: (x: Float32Array, i: number) => Float32Array,
  end = sampler.timesteps.length,
): SamplerState[] {
  const states: SamplerState[] = [{ latent: first }];
  for (let i = 0; i < end; i++) {
    const state = states[i] as SamplerState;
    states.push(sampler.step(i, state, model(state.latent, i)));
  }
  return states;
}

/** `count` standard normal samples. */
export const noise = (seed: number, count: number): Float32Array => new TorchGenerator(seed).randn([count]);
