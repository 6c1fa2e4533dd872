import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  adaptedFemo,
  biasCorrections,
  femo,
  foca,
  fora,
  hiCache,
  measuredError,
  momentumSeeds,
  newton,
  taylorSeer,
} from "../../../src/methods/forecasts/index.js";
import { arrayFemo, arrayFoca, arrayFora, arrayHiCache, arrayTaylor, replayArrays } from "./arrays.js";
import { type AnyForecaster, expectClose, replay, type Step, trajectory } from "./replay.js";

const orders = [1, 2, 3, 4];

/** Up to 24 steps, counting up or down, the first full, any others full; with or without FLUX's gate at step 1. */
const runs = fc
  .record({
    full: fc.array(fc.boolean(), { minLength: 4, maxLength: 24 }),
    direction: fc.constantFrom(1, -1),
    firstDifference: fc.constantFrom(0, 1),
    seed: fc.integer(),
  })
  .map(({ full, direction, firstDifference, seed }) => ({
    steps: full.map(
      (isFull, i): Step => ({
        position: direction * i,
        full: i === 0 || isFull,
        differences: i > firstDifference,
      }),
    ),
    feature: trajectory(seed),
  }));
const betas = fc.double({ min: -0.9, max: 0.9, noNaN: true });

describe("coefficients equal the arithmetic on arrays", () => {
  test("FORA", () => {
    fc.assert(
      fc.property(runs, ({ steps, feature }) =>
        expectClose(replay(fora(), steps, feature), replayArrays(arrayFora(), steps, feature)),
      ),
    );
  });

  test.each(orders)("TaylorSeer, order %i", (order) => {
    fc.assert(
      fc.property(runs, ({ steps, feature }) =>
        expectClose(replay(taylorSeer(order), steps, feature), replayArrays(arrayTaylor(order), steps, feature)),
      ),
    );
  });

  test.each(orders)("HiCache, order %i", (order) => {
    fc.assert(
      fc.property(runs, fc.double({ min: 0.1, max: 1, noNaN: true }), ({ steps, feature }, sigma) =>
        expectClose(
          replay(hiCache(order, sigma), steps, feature),
          replayArrays(arrayHiCache(order, sigma), steps, feature),
        ),
      ),
    );
  });

  test("FoCa, whose arrays walk every step", () => {
    fc.assert(
      fc.property(runs, ({ steps, feature }) =>
        expectClose(replay(foca(), steps, feature), replayArrays(arrayFoca(), steps, feature)),
      ),
    );
  });

  const choices = orders.flatMap((order) =>
    momentumSeeds.flatMap((seed) =>
      biasCorrections.map((biasCorrection) => ({ order, momentumSeed: seed, biasCorrection })),
    ),
  );

  test.each(choices)("FEMO, order $order, seed $seed, correction $biasCorrection", (choice) => {
    fc.assert(
      fc.property(runs, betas, ({ steps, feature }, beta) => {
        const wanted = replayArrays(arrayFemo({ ...choice, beta }), steps, feature);
        expectClose(replay(femo({ ...choice, beta }), steps, feature), wanted);
      }),
      { numRuns: 40 },
    );
  });

  test.each(choices)("Adapted-FEMO, order $order, seed $seed, correction $biasCorrection", (choice) => {
    fc.assert(
      fc.property(
        runs,
        fc.double({ min: -0.5, max: 0.5, noNaN: true }),
        fc.double({ min: 0, max: 0.1, noNaN: true }),
        fc.double({ min: 0, max: 0.2, noNaN: true }),
        ({ steps, feature }, beta, gamma, delta) => {
          const options = { ...choice, beta, gamma, delta };
          const wanted = replayArrays(arrayFemo(options), steps, feature);
          expectClose(replay(adaptedFemo(options), steps, feature), wanted);
        },
      ),
      { numRuns: 40 },
    );
  });
});

describe("limits of FEMO", () => {
  test.each(orders)("beta 0 is TaylorSeer of order %i", (order) => {
    fc.assert(
      fc.property(runs, ({ steps, feature }) =>
        expectClose(replay(femo({ order, beta: 0 }), steps, feature), replay(taylorSeer(order), steps, feature), 1e-12),
      ),
    );
  });

  test.each(orders)("gamma 0 leaves adapted FEMO of order %i at its fixed beta", (order) => {
    fc.assert(
      fc.property(runs, betas, ({ steps, feature }, beta) =>
        expectClose(
          replay(adaptedFemo({ order, beta, gamma: 0, delta: 0.1 }), steps, feature),
          replay(femo({ order, beta }), steps, feature),
        ),
      ),
    );
  });

  test("beta moves by gamma towards the larger norm and stops delta from where it began", () => {
    const forecaster = adaptedFemo({ order: 1, beta: 0.1, gamma: 0.02, delta: 0.03 });
    const unitGram = (truth2: number) => [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, truth2],
    ];
    const moved = (from: ReturnType<typeof forecaster.start>, truth2: number) =>
      forecaster.adapt?.(from, unitGram(truth2), [1, 0]) ?? from;
    const start = forecaster.start(0);
    const up = moved(start, 4);
    expect(forecaster.beta?.(up)).toBeCloseTo(0.12, 12);
    expect(forecaster.beta?.(moved(up, 4))).toBeCloseTo(0.13, 12);
    expect(forecaster.beta?.(moved(moved(moved(start, 0.25), 0.25), 0.25))).toBeCloseTo(0.07, 12);
    expect(forecaster.beta?.(moved(start, 1))).toBe(0.1); // sign(0) = 0
  });

  test("a list of betas is dealt out to the samples in turn", () => {
    const forecaster = femo({ order: 1, beta: [0.1, -0.2, 0.3] });
    expect([0, 1, 2, 3].map((sample) => forecaster.beta?.(forecaster.start(sample)))).toEqual([0.1, -0.2, 0.3, 0.1]);
  });
});

describe("limits of HiCache", () => {
  test("order 1 with sigma 1 / sqrt 2 is TaylorSeer", () => {
    fc.assert(
      fc.property(runs, ({ steps, feature }) =>
        expectClose(replay(hiCache(1, Math.SQRT1_2), steps, feature), replay(taylorSeer(1), steps, feature), 1e-12),
      ),
    );
  });

  test("order 2 with it takes off half the second difference, at any distance", () => {
    const rows = [0, 1, 2].map((i) => [0, 1, 2].map((j) => Number(i === j))); // D0, D1 and D2 themselves
    for (const position of [-3, 0, 1, 4]) {
      const [d0, d1, d2] = taylorSeer(2).combine({ last: 0, rows }, position) as [number, number, number];
      const found = hiCache(2, Math.SQRT1_2).combine({ last: 0, rows }, position) as number[];
      [d0, d1, d2 - 0.5].forEach((wanted, i) => {
        expect(found[i]).toBeCloseTo(wanted, 12);
      });
    }
  });

  test("sigma 0.5 goes half as far along the slope", () => {
    const rows = [
      [1, 0],
      [0, 1],
    ];
    expect(hiCache(1, 0.5).combine({ last: 2, rows }, 5)).toEqual([1, 1.5]);
  });
});

describe("counting down instead of up", () => {
  const mirrored = (steps: readonly Step[]): Step[] => steps.map((step) => ({ ...step, position: -step.position }));
  const symmetric: [string, AnyForecaster][] = [
    ["FORA", fora()],
    ["FoCa", foca()],
    ...orders.flatMap((order): [string, AnyForecaster][] => [
      [`TaylorSeer ${order}`, taylorSeer(order)],
      [`Newton ${order}`, newton(order)],
      [`HiCache ${order}`, hiCache(order, 0.5)],
      [`FEMO ${order}`, femo({ order, beta: 0.3 })],
      [`Adapted-FEMO ${order}`, adaptedFemo({ order, beta: 0.3, gamma: 0.05, delta: 0.2 })],
    ]),
  ];

  test.each(symmetric)("%s forecasts the same", (_, forecaster) => {
    fc.assert(
      fc.property(runs, ({ steps, feature }) => {
        const wanted = replay(forecaster, steps, feature);
        expectClose(
          replay(forecaster, mirrored(steps), (position) => feature(-position)),
          wanted,
        );
      }),
      { numRuns: 40 },
    );
  });

  test("the seed 'feature' gives M the unit of a feature, not of a slope, so the direction shows", () => {
    const [forecaster, feature] = [femo({ order: 1, beta: 0.3, momentumSeed: "feature" }), trajectory(5)];
    const steps = [0, 1, 2, 3].map((position, i) => ({ position, full: i < 2, differences: i > 0 }));
    const [up, down] = [
      replay(forecaster, steps, feature).at(-1) as Float64Array,
      replay(forecaster, mirrored(steps), (position) => feature(-position)).at(-1) as Float64Array,
    ];
    // M holds beta F(0) per step: the two directions part by 2 x beta F / (1 - beta), at x = 2.
    const first = feature(0);
    up.forEach((value, i) => {
      expect(value - (down[i] as number)).toBeCloseTo((4 * 0.3 * (first[i] as number)) / (1 - 0.3), 10);
    });
  });
});

test("the error of a measured step follows from inner products", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -9, max: 9 }), { minLength: 9, maxLength: 9 }), (v) => {
      const rows = [v.slice(0, 3), v.slice(3, 6), v.slice(6)]; // two of the state, and the truth
      const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * (b[i] as number), 0);
      const [a, b, truth] = rows as [number[], number[], number[]];
      const off = truth.map((x, i) => x - 2 * (a[i] as number) + 3 * (b[i] as number));
      const { error2, norm2 } = measuredError(
        rows.map((x) => rows.map((y) => dot(x, y))),
        [2, -3],
      );
      expect(error2).toBeCloseTo(dot(off, off), 8);
      expect(norm2).toBe(dot(truth, truth));
    }),
  );
});
