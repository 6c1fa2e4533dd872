import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { adaptedFemo, femo, foca, fora, hiCache, newton, taylorSeer } from "../../../src/methods/forecasts/index.js";
import { forecastAt } from "./replay.js";

/** Six to eight full steps at any spacing, up or down, and a horizon. */
const spacings = fc
  .record({
    gaps: fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 5, maxLength: 7 }),
    sign: fc.constantFrom(1, -1),
    x: fc.integer({ min: 1, max: 6 }),
  })
  .map(({ gaps, sign, x }) => {
    const full = [0];
    for (const gap of gaps) full.push((full.at(-1) as number) + sign * gap);
    return { full, position: (full.at(-1) as number) + sign * x, x: sign * x };
  });
const coefficient = fc.integer({ min: -9, max: 9 });
const relative = (found: number, wanted: number): number => Math.abs(found - wanted) / Math.max(1, Math.abs(wanted));

const equalSpacing = (N: number): number[] => [0, 1, 2, 3, 4, 5].map((i) => i * N);
const grid = [2, 3, 5].flatMap((N) => [1, 2, 4].map((x) => ({ N, x })));
/** How far a forecast stays behind t², x steps after full steps at spacing N. */
const lag = (forecaster: Parameters<typeof forecastAt>[0], N: number, x: number): number =>
  (5 * N + x) ** 2 - forecastAt(forecaster, equalSpacing(N), 5 * N + x, (t) => t * t);

describe("FORA", () => {
  test("is exact on constants, and off by slope times x on affine features", () => {
    fc.assert(
      fc.property(spacings, coefficient, coefficient, ({ full, position, x }, slope, offset) => {
        expect(forecastAt(fora(), full, position, () => offset)).toBe(offset);
        const off = slope * position + offset - forecastAt(fora(), full, position, (t) => slope * t + offset);
        expect(off).toBeCloseTo(slope * x, 10);
      }),
    );
  });
});

describe("TaylorSeer", () => {
  test.each([1, 2, 3, 4])("order %i is exact on affine features at any spacing", (order) => {
    fc.assert(
      fc.property(spacings, coefficient, coefficient, ({ full, position }, slope, offset) => {
        const found = forecastAt(taylorSeer(order), full, position, (t) => slope * t + offset);
        expect(relative(found, slope * position + offset)).toBeLessThan(1e-10);
      }),
    );
  });

  test.each(grid)("order 1 lags t² by x(x + N): N $N, x $x", ({ N, x }) => {
    expect(lag(taylorSeer(1), N, x)).toBeCloseTo(x * (x + N), 9);
  });

  test.each(grid)(
    "orders 2 to 4 lag t² by N x, a backward difference being half a gap late: N $N, x $x",
    ({ N, x }) => {
      for (const order of [2, 3, 4]) expect(lag(taylorSeer(order), N, x)).toBeCloseTo(N * x, 9);
    },
  );
});

describe("Newton", () => {
  test.each([0, 1, 2, 3, 4])("order %i is exact to its degree at any spacing, and no further", (order) => {
    fc.assert(
      fc.property(spacings, fc.array(coefficient, { minLength: 5, maxLength: 5 }), ({ full, position }, c) => {
        const polynomial = (t: number) => c.slice(0, order + 1).reduce((sum, a, i) => sum + a * (t / 10) ** i, 0);
        expect(relative(forecastAt(newton(order), full, position, polynomial), polynomial(position))).toBeLessThan(
          1e-8,
        );

        // The next degree is off by the product of the distances to the nodes.
        const next = (t: number) => t ** (order + 1);
        const off = next(position) - forecastAt(newton(order), full, position, next);
        const nodes = full.slice(-(order + 1)).reduce((product, node) => product * (position - node), 1);
        expect(off / nodes).toBeCloseTo(1, 5);
      }),
    );
  });
});

describe("FEMO", () => {
  const beta = fc.double({ min: -0.95, max: 0.95, noNaN: true });

  test.each([1, 2, 3, 4])(
    "order %i, zero seed, corrected by updates: exact on affine features for any beta",
    (order) => {
      fc.assert(
        fc.property(spacings, coefficient, coefficient, beta, ({ full, position }, slope, offset, b) => {
          const affine = (t: number) => slope * t + offset;
          for (const forecaster of [
            femo({ order, beta: b }),
            femo({ order, beta: b, momentumSeed: "first-difference" }),
            adaptedFemo({ order, beta: b, gamma: 0, delta: 0 }),
          ]) {
            expect(relative(forecastAt(forecaster, full, position, affine), affine(position))).toBeLessThan(1e-8);
          }
        }),
      );
    },
  );

  test("without correction the slope is short by beta^n", () => {
    fc.assert(
      fc.property(spacings, coefficient, beta, ({ full, position, x }, slope, b) => {
        const forecaster = femo({ order: 1, beta: b, biasCorrection: "off" });
        const off = slope * position - forecastAt(forecaster, full, position, (t) => slope * t);
        expect(Math.abs(off - b ** (full.length - 1) * slope * x)).toBeLessThan(1e-9);
      }),
    );
  });

  test.each(grid)("beta > 0 lags t² more than TaylorSeer, beta = -0.2 less: N $N, x $x", ({ N, x }) => {
    const taylor = lag(taylorSeer(1), N, x);
    expect(lag(femo({ order: 1, beta: 0.325 }), N, x)).toBeGreaterThan(taylor + 0.1);
    expect(lag(femo({ order: 1, beta: -0.2 }), N, x)).toBeLessThan(taylor - 0.1);
    expect(lag(femo({ order: 1, beta: -0.2 }), N, x)).toBeGreaterThan(0);
  });
});

describe("HiCache", () => {
  test("is exact on constants, and keeps 2 sigma² of a slope", () => {
    const sigma = fc.double({ min: 0.1, max: 1, noNaN: true });
    fc.assert(
      fc.property(spacings, coefficient, coefficient, sigma, ({ full, position, x }, slope, offset, s) => {
        for (const order of [1, 2, 3, 4]) {
          const found = forecastAt(hiCache(order, s), full, position, (t) => slope * t + offset);
          expect(relative(found, slope * (full.at(-1) as number) + offset + 2 * s ** 2 * slope * x)).toBeLessThan(1e-9);
        }
      }),
    );
  });
});

describe("FoCa", () => {
  test("is exact on constants", () => {
    fc.assert(
      fc.property(spacings, coefficient, ({ full, position }, offset) => {
        expect(
          relative(
            forecastAt(foca(), full, position, () => offset),
            offset,
          ),
        ).toBeLessThan(1e-10);
      }),
    );
  });

  test("behind full steps in a row it is exact on affine features for three steps, then falls back", () => {
    const off = (x: number) => 5 + x - forecastAt(foca(), [0, 1, 2, 3, 4, 5], 5 + x, (t) => t);
    for (const x of [1, 2, 3]) expect(off(x)).toBeCloseTo(0, 12);
    expect(off(4)).toBeCloseTo(4 - 9 / 4, 12); // w = 3/4 of a lead of 3
  });
});

test("nothing can be forecast before the first full step", () => {
  for (const forecaster of [fora(), taylorSeer(2), newton(2), femo({ order: 2, beta: 0.1 }), hiCache(2, 0.5), foca()]) {
    expect(forecaster.combine(forecaster.start(0) as never, 0)).toBeUndefined();
  }
});
