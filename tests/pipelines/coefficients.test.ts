import { describe, expect, test } from "vitest";
import { adaptedFemo, femo } from "../../src/forecasts/index.js";
import { Coefficients } from "../../src/pipelines/coefficients.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { random } from "../forecasts/replay.js";
import { floats, numbers } from "../runtime/helpers.js";

describe("every feature and sample of an adapting forecaster is on its own", () => {
  const forecaster = adaptedFemo({ order: 2, beta: [0.1, -0.2], gamma: 0.05, delta: 0.2 });
  const [features, images, side] = [3, [0, 1, 0, 1], forecaster.stateSize + 1];
  const cell = (tensor: HostTensor, at: number): number[] => {
    const size = (tensor.dims[2] as number) * (tensor.dims[3] as number);
    return numbers(tensor).slice(at * size, (at + 1) * size);
  };

  /** Gram matrices of random vectors, which grow and shrink differently in every cell. */
  function grams(step: number): HostTensor {
    const data = Array.from({ length: features * images.length }, (_, at) => {
      const next = random(100 * step + at);
      const vectors = Array.from({ length: side }, () => [next(), next(), next()]);
      return vectors.flatMap((a) => vectors.map((b) => a.reduce((sum, x, i) => sum + x * (b[i] as number), 0)));
    });
    return floats([features, images.length, side, side], data.flat());
  }

  test("as if it were alone", () => {
    const together = new Coefficients(forecaster, features, images);
    const alone = Array.from({ length: features * images.length }, (_, at) => {
      return new Coefficients(forecaster, 1, [images[at % images.length] as number]);
    });
    for (const [step, position] of [9, 8, 5, 2].entries()) {
      const update = together.update({ position, differences: step > 0 });
      alone.forEach((one, at) => {
        expect(cell(update, at)).toEqual(numbers(one.update({ position, differences: step > 0 })));
      });
      const all = grams(step);
      const measured = together.measure(all);
      expect(measured === undefined).toBe(step === 0);
      const errors = alone.map((one, at) => one.measure(floats([1, 1, side, side], cell(all, at)))?.relativeError ?? 0);
      for (let f = 0; f < features && measured; f++) {
        const own = errors.slice(f * images.length, (f + 1) * images.length);
        const rms = Math.sqrt(own.reduce((sum, e) => sum + e * e, 0) / own.length);
        expect(measured.byFeature[f]).toBeCloseTo(rms, 10);
      }
      const combine = together.combine(position - 1);
      alone.forEach((one, at) => {
        expect(cell(combine, at)).toEqual(numbers(one.combine(position - 1)));
      });
    }
    const betas = alone.map((one) => one.beta()?.mean as number);
    expect(new Set(betas.map((beta) => beta.toFixed(6))).size).toBeGreaterThan(2);
    expect(together.beta()).toEqual({
      mean: expect.closeTo(betas.reduce((a, b) => a + b) / betas.length, 12),
      min: Math.min(...betas),
      max: Math.max(...betas),
    });
  });
});

test("a forecaster that does not adapt serves all features with one set, a sample its image's beta", () => {
  const coefficients = new Coefficients(femo({ order: 1, beta: [0, 0.5, 0.25] }), 2, [0, 1, 0, 1]);
  coefficients.update({ position: 0, differences: false });
  coefficients.update({ position: 1, differences: true });
  const { dims, data } = coefficients.update({ position: 2, differences: true });
  expect(dims).toEqual([2, 4, 2, 3]);
  const keep = Array.from({ length: 8 }, (_, at) => data[6 * at + 4]); // M of M <- beta M + (1 - beta) D
  expect(keep).toEqual([0, 0.5, 0, 0.5, 0, 0.5, 0, 0.5]);
});
