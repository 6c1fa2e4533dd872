import { describe, expect, test } from "vitest";
import { Coefficients, measuredForecast, type SquaredErrors } from "../../src/denoising/coefficients.js";
import { adaptedFemo, type BetaScope, betaScopes, femo, fora } from "../../src/methods/forecasts/index.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { random } from "../methods/forecasts/replay.js";
import { floats, numbers } from "../runtime/helpers.js";

describe("what shares a beta adapts as one feature would that holds all of it", () => {
  const [features, images] = [3, [0, 1, 0, 1]];
  const cells = Array.from({ length: features * images.length }, (_, cell) => cell);
  const [featureOf, rowOf] = [
    (cell: number) => Math.floor(cell / images.length),
    (cell: number) => cell % images.length,
  ];

  const scopes: Record<BetaScope, { groupOf: (cell: number) => unknown; groups: number }> = {
    "feature-row": { groupOf: (cell) => cell, groups: 12 },
    feature: { groupOf: (cell) => `${featureOf(cell)} ${images[rowOf(cell)]}`, groups: 6 },
    row: { groupOf: rowOf, groups: 4 },
    image: { groupOf: (cell) => images[rowOf(cell)], groups: 2 },
  };

  test.each(betaScopes)("%s", (betaPer) => {
    const forecaster = adaptedFemo({ order: 2, beta: [0.1, -0.2], gamma: 0.05, delta: 0.2, betaPer });
    const side = forecaster.history + forecaster.averages + 1;
    /** What belongs to a cell in a tensor of all features, or in one tensor for each. */
    const part = (tensors: HostTensor | readonly HostTensor[], cell: number): number[] => {
      const all = ("data" in tensors ? [tensors] : tensors).flatMap(numbers);
      const size = all.length / cells.length;
      return all.slice(cell * size, (cell + 1) * size);
    };
    /** Gram matrices of random vectors, which grow and shrink differently in every cell. */
    const gram = (step: number, cell: number): number[] => {
      const next = random(100 * step + cell);
      const vectors = Array.from({ length: side }, () => [next(), next(), next()]);
      return vectors.flatMap((a) => vectors.map((b) => Math.fround(a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0))));
    };

    const { groupOf, groups } = scopes[betaPer];
    const members = new Map(
      cells.map((cell) => [groupOf(cell), cells.filter((other) => groupOf(other) === groupOf(cell))]),
    );
    expect(members.size).toBe(groups);
    const together = Coefficients.start(forecaster, features, images);
    const alone = new Map(
      [...members].map(([group, [first]]) => [
        group,
        Coefficients.start(forecaster, 1, [images[rowOf(first as number)] as number]),
      ]),
    );
    for (const [step, position] of [9, 8, 5, 2].entries()) {
      together.expect(position);
      const measured = together.measure(
        Array.from({ length: features }, (_, feature) =>
          floats(
            [images.length, side, side],
            cells.filter((cell) => featureOf(cell) === feature).flatMap((cell) => gram(step, cell)),
          ),
        ),
      );
      expect(measured === undefined).toBe(step === 0);
      for (const [group, own] of members) {
        const sum = own.map((cell) => gram(step, cell)).reduce((a, b) => a.map((x, i) => x + (b[i] as number)));
        alone.get(group)?.expect(position);
        alone.get(group)?.measure([floats([1, side, side], sum)]);
      }
      const full = { position, differences: step > 0 };
      const updates = new Map([...alone].map(([group, one]) => [group, one.update(full).flatMap(numbers)]));
      const update = together.update(full);
      for (const cell of cells) expect(part(update, cell)).toEqual(updates.get(groupOf(cell)));

      const combines = new Map([...alone].map(([group, one]) => [group, numbers(one.combine(position - 1, [0]))]));
      const combine = together.combine(
        position - 1,
        Array.from({ length: features }, (_, i) => i),
      );
      for (const cell of cells) expect(part(combine, cell)).toEqual(combines.get(groupOf(cell)));
    }
    const betas = [...alone.values()].map((one) => one.beta()?.mean as number);
    expect(new Set(betas.map((beta) => beta.toFixed(6))).size).toBeGreaterThan(1);
    expect(together.beta()).toEqual({
      mean: expect.closeTo(betas.reduce((a, b) => a + b) / betas.length, 12),
      min: Math.min(...betas),
      max: Math.max(...betas),
    });
  });

  test("the measured error is the root mean square over samples, and over features", () => {
    const coefficients = Coefficients.start(fora(), 2, [0, 1]);
    // Gram matrices of [S; F] with S = 1 and F = 1 + d: FORA is off by d.
    const grams = (errors: number[]): HostTensor[] =>
      [errors.slice(0, 2), errors.slice(2)].map((part) =>
        floats(
          [2, 2, 2],
          part.flatMap((d) => [1, 1 + d, 1 + d, (1 + d) ** 2]),
        ),
      );
    coefficients.expect(0);
    expect(coefficients.measure(grams([0, 0, 0, 0]))).toBeUndefined();
    coefficients.update({ position: 0, differences: false });
    coefficients.expect(0);
    const relative = [1, 0.5, 0, 0.25];
    const squares = coefficients.measure(grams(relative)) as SquaredErrors;
    const measured = measuredForecast(squares, [0, 1]);
    const errors = relative.map((d) => d / (1 + d));
    const rms = (list: number[]): number => Math.sqrt(list.reduce((sum, e) => sum + e * e, 0) / list.length);
    expect(measured.byFeature).toEqual([
      expect.closeTo(rms(errors.slice(0, 2)), 6),
      expect.closeTo(rms(errors.slice(2)), 6),
    ]);
    expect(measured.relativeError).toBeCloseTo(rms(errors), 6);
    const second = measuredForecast(squares, [1]);
    expect(second.bySample).toEqual([measured.bySample[1]]);
    expect(second.byFeature).toEqual([expect.closeTo(errors[1] as number, 6), expect.closeTo(errors[3] as number, 6)]);
    expect(second.relativeError).toBeCloseTo(rms([errors[1] as number, errors[3] as number]), 6);
  });
});

test("a forecaster that does not adapt serves all features with one set, a sample its image's beta", () => {
  const coefficients = Coefficients.start(femo({ order: 1, beta: [0, 0.5, 0.25] }), 2, [0, 1, 0, 1]);
  coefficients.update({ position: 0, differences: false });
  coefficients.update({ position: 1, differences: true });
  const updates = coefficients.update({ position: 2, differences: true });
  expect(updates.map(({ dims }) => dims)).toEqual([
    [4, 1, 3],
    [4, 1, 3],
  ]);
  const keep = updates.flatMap(({ data }) => [1, 4, 7, 10].map((at) => data[at])); // M of M <- beta M + (1 - beta) D
  expect(keep).toEqual([0, 0.5, 0, 0.5, 0, 0.5, 0, 0.5]);
});
