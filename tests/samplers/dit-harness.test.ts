import { describe, expect, test } from "vitest";
import { guidanceRows, guide } from "../../src/denoising/guidance.js";
import { createSampler, ddim, ditScheduler, type TimestepSpacing } from "../../src/samplers/index.js";
import { noise, relativeError } from "./helpers.js";

/*
 * How the DiT repository samples, written from its description in plain float64 arrays: the chain is cut down to the
 * timesteps kept and gets betas of its own, guidance doubles the batch and acts on three channels, the model's variance
 * plays no part at eta = 0.
 */

const T = 1000;

/** Timesteps kept, ascending: "ddim50" by a whole-numbered stride, "50" spread over 0 ... T - 1. */
function keptTimesteps(respacing: string): number[] {
  if (respacing.startsWith("ddim")) {
    const count = Number(respacing.slice("ddim".length));
    const stride = Array.from({ length: T }, (_, i) => i + 1).find((s) => Math.ceil(T / s) === count);
    if (stride === undefined) throw new Error(`no whole stride gives ${count} steps`);
    return Array.from({ length: count }, (_, i) => i * stride);
  }
  const count = Number(respacing);
  const stride = count <= 1 ? 1 : (T - 1) / (count - 1);
  const kept: number[] = [];
  for (let at = 0; kept.length < count; at += stride) {
    const down = Math.floor(at);
    const up = at - down > 0.5 || (at - down === 0.5 && down % 2 === 1);
    kept.push(up ? down + 1 : down);
  }
  return kept;
}

/** The cut chain: the kept timesteps and cumulative alphas made again from its own betas. */
function respaced(respacing: string): { kept: number[]; alphaBar: number[]; alphaBarPrevious: number[] } {
  const kept = keptTimesteps(respacing);
  const betas: number[] = [];
  let [whole, last] = [1, 1];
  for (let t = 0; t < T; t++) {
    whole *= 1 - (1e-4 + (t / (T - 1)) * (0.02 - 1e-4));
    if (!kept.includes(t)) continue;
    betas.push(1 - whole / last);
    last = whole;
  }
  let product = 1;
  const alphaBar = betas.map((beta) => {
    product *= 1 - beta;
    return product;
  });
  return { kept, alphaBar, alphaBarPrevious: [1, ...alphaBar.slice(0, -1)] };
}

const [IMAGES, CHANNELS, PIXELS, SCALE] = [2, 4, 9, 1.5];
const SIZE = CHANNELS * PIXELS;

/** A model of [rows, 4, pixels] that predicts noise and, in four more channels, a variance that nothing may use. */
function model(x: ArrayLike<number>, timestep: number, labels: readonly number[]): number[] {
  return labels.flatMap((label, row) => {
    const epsilon = Array.from({ length: SIZE }, (_, j) => {
      const v = x[row * SIZE + j] as number;
      return 0.7 * v + 0.2 * Math.sin(2 * v + timestep / 300 + label) + 0.1 * Math.cos(j);
    });
    return [...epsilon, ...epsilon.map((e) => 1e3 * e)];
  });
}

const [withClass, withoutClass] = [new Array<number>(IMAGES).fill(7), new Array<number>(IMAGES).fill(1000)];

/** The reference: every latent from noise to image, rows with class only. */
function reference(respacing: string, start: Float32Array): number[][] {
  const { kept, alphaBar, alphaBarPrevious } = respaced(respacing);
  let x = [...start, ...start];
  const latents: number[][] = [];
  for (let index = kept.length - 1; index >= 0; index--) {
    const half = x.slice(0, IMAGES * SIZE);
    const output = model([...half, ...half], kept[index] as number, [...withClass, ...withoutClass]);
    const at = (row: number, j: number) => output[row * 2 * SIZE + j] as number;
    x = x.map((value, k) => {
      const [row, j] = [Math.floor(k / SIZE), k % SIZE];
      const image = row % IMAGES;
      const guided = at(image + IMAGES, j) + SCALE * (at(image, j) - at(image + IMAGES, j));
      const epsilon = j < 3 * PIXELS ? guided : at(row, j);
      const [a, previous] = [alphaBar[index] as number, alphaBarPrevious[index] as number];
      const x0 = Math.sqrt(1 / a) * value - Math.sqrt(1 / a - 1) * epsilon;
      const again = (Math.sqrt(1 / a) * value - x0) / Math.sqrt(1 / a - 1);
      return Math.sqrt(previous) * x0 + Math.sqrt(1 - previous) * again;
    });
    latents.push(x.slice(0, IMAGES * SIZE));
  }
  return latents;
}

describe.each<[respacing: string, spacing: TimestepSpacing]>([
  ["50", "dit"],
  ["7", "dit"],
  ["ddim50", "leading"],
  ["ddim8", "leading"],
])('respacing "%s" is "%s" spacing', (respacing, timestepSpacing) => {
  const kept = keptTimesteps(respacing);
  const sampler = createSampler(ditScheduler, { timestepSpacing, numInferenceSteps: kept.length });

  test("timesteps", () => expect(sampler.timesteps).toEqual(kept.toReversed()));

  test("every latent, guided on three channels", () => {
    const start = noise(3, IMAGES * SIZE);
    const rows = guidanceRows(SCALE, 0, 1);
    let state = { latent: start };
    reference(respacing, start).forEach((expected, i) => {
      const { latent } = state;
      const output = model([...latent, ...latent], sampler.timesteps[i] as number, [...withClass, ...withoutClass]);
      const stride = output.length / (2 * IMAGES);
      const part = (row: number) => Float32Array.from(output.slice(row * stride, (row + 1) * stride));
      const epsilon = Float32Array.from(
        Array.from({ length: IMAGES }, (_, i) => guide(rows, [part(i), part(IMAGES + i)], SIZE, 3 * 9)).flatMap((e) => [
          ...e,
        ]),
      );
      state = sampler.step(i, state, epsilon);
      expect(relativeError(state.latent, expected)).toBeLessThan(2e-6); // measured: 5.4e-7, from float32 latents
    });
  });
});

test('"n" for every n, and "ddimn" where n divides T, are timesteps of ours', () => {
  for (let n = 1; n <= T; n++) {
    const timestepsOf = (timestepSpacing: TimestepSpacing) =>
      ddim({ ...ditScheduler, timestepSpacing, numInferenceSteps: n }).timesteps;
    expect(timestepsOf("dit").join()).toBe(keptTimesteps(`${n}`).reverse().join());
    if (T % n === 0) expect(timestepsOf("leading").join()).toBe(keptTimesteps(`ddim${n}`).reverse().join());
  }
});
