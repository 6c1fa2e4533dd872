import type { AdaptedFemoOptions } from "../../../src/methods/forecasts/index.js";
import type { Feature, Step } from "./replay.js";

/** A method as the papers write it, on arrays: derivatives and momenta are held, nothing is a matrix. */
interface ArrayMethod {
  predict(position: number): Float64Array;
  observe(position: number, feature: Float64Array, differences: boolean): void;
}

const axpy = (a: number, x: Float64Array, y: Float64Array): Float64Array =>
  y.map((value, i) => value + a * (x[i] as number));
const norm = (x: Float64Array): number => Math.hypot(...x);
const factorial = (n: number): number => (n < 2 ? 1 : n * factorial(n - 1));

export function arrayFora(): ArrayMethod {
  let cached = new Float64Array();
  return {
    predict: () => cached,
    observe(_position, feature) {
      cached = Float64Array.from(feature);
    },
  };
}

export function arrayTaylor(
  order: number,
  onDifferences: (derivatives: Float64Array[], position: number) => void = () => {},
): ArrayMethod {
  let [derivatives, last] = [[] as Float64Array[], 0];
  return {
    predict: (position) =>
      derivatives.reduce((sum, d, i) => axpy((position - last) ** i / factorial(i), d, sum), zerosLike(derivatives)),
    observe(position, feature, differences) {
      const next = [feature];
      for (let i = 0; i < order; i++) {
        const [old, newer] = [derivatives[i], next[i] as Float64Array];
        if (!old || !differences) break;
        next.push(axpy(-1, old, newer).map((x) => x / (position - last)));
      }
      [derivatives, last] = [next, position];
      onDifferences(derivatives, last);
    },
  };
}

/** Hermite polynomials from their sums, not from the recursion. */
const hermite = (i: number, y: number): number => {
  let sum = 0;
  for (let j = 0; 2 * j <= i; j++) {
    sum += ((-1) ** j * factorial(i) * (2 * y) ** (i - 2 * j)) / (factorial(j) * factorial(i - 2 * j));
  }
  return sum;
};

export function arrayHiCache(order: number, sigma: number): ArrayMethod {
  let [derivatives, last] = [[] as Float64Array[], 0];
  const taylor = arrayTaylor(order, (next, position) => {
    [derivatives, last] = [next, position];
  });
  return {
    ...taylor,
    predict: (position) =>
      derivatives.reduce((sum, d, i) => {
        return axpy((sigma ** i * hermite(i, sigma * (position - last))) / factorial(i), d, sum);
      }, zerosLike(derivatives)),
  };
}

/** Every step's value is kept, forecast or computed, by the number of the step. */
export function arrayFoca(): ArrayMethod {
  const values = new Map<number, Float64Array>();
  const full: number[] = [];
  const value = (step: number) => values.get(step) as Float64Array;
  return {
    predict(position) {
      const now = Math.abs(position);
      const [last, before] = [full.at(-1) as number, full.at(-2)];
      const feature = value(last);
      const e = now - last;
      const trend = (at: number) => axpy(at / 2, axpy(-1, value(before as number), feature), feature);
      const heun = (at: number) => axpy(at / 2, axpy(-1, value(now - 2), value(now - 1)), trend(at));
      const mixed = () =>
        axpy(
          3 / e,
          heun(3),
          feature.map((x) => x * (1 - 3 / e)),
        );
      const forecast = before === undefined ? feature : e <= 3 ? heun(e) : mixed();
      values.set(now, forecast);
      return forecast;
    },
    observe(position, feature) {
      values.set(Math.abs(position), feature);
      full.push(Math.abs(position));
    },
  };
}

export function arrayFemo(options: Partial<AdaptedFemoOptions> & { order: number; beta: number }): ArrayMethod {
  const { order, beta: initial, momentumSeed = "zero", biasCorrection = "updates", gamma = 0, delta = 0 } = options;
  let [beta, last] = [initial, 0];
  let derivatives: Float64Array[] = [];
  const momentum: (Float64Array | undefined)[] = [];
  const updates = new Array<number>(order + 1).fill(0);
  const since = new Array<number>(order + 1).fill(0);

  const predict = (position: number): Float64Array => {
    let out = derivatives[0] as Float64Array;
    for (let i = 1; i <= order; i++) {
      const n = updates[i] as number;
      if (n === 0) continue;
      const elapsed = Math.abs(last - (since[i] as number));
      const correction = { updates: 1 - beta ** n, steps: 1 - beta ** elapsed, off: 1 }[biasCorrection];
      const divisor = momentumSeed === "first-difference" ? 1 : correction;
      out = axpy((position - last) ** i / (factorial(i) * divisor), momentum[i] as Float64Array, out);
    }
    return out;
  };

  return {
    predict,
    observe(position, feature, differences) {
      if (derivatives.length === 0) {
        momentum[1] = momentumSeed === "feature" ? feature : undefined;
      } else {
        const sign = Math.sign(norm(feature) - norm(predict(position)));
        beta = Math.min(Math.max(beta + gamma * sign, initial - delta), initial + delta);
      }
      const next = [feature];
      for (let i = 1; differences && i <= order && derivatives[i - 1]; i++) {
        const d = axpy(-1, derivatives[i - 1] as Float64Array, next[i - 1] as Float64Array);
        next.push(d.map((x) => x / (position - last)));
      }
      for (let i = 1; i < next.length; i++) {
        const [d, old] = [next[i] as Float64Array, momentum[i] ?? zerosLike(next)];
        const isFirst = updates[i] === 0;
        if (isFirst) since[i] = last;
        momentum[i] =
          momentumSeed === "first-difference" && isFirst
            ? d
            : axpy(
                1 - beta,
                d,
                old.map((x) => beta * x),
              );
        updates[i] = (updates[i] as number) + 1;
      }
      [derivatives, last] = [next, position];
    },
  };
}

const zerosLike = (arrays: readonly Float64Array[]): Float64Array => new Float64Array(arrays[0]?.length ?? 0);

export function replayArrays(
  method: ArrayMethod,
  steps: readonly Step[],
  feature: Feature,
): (Float64Array | undefined)[] {
  let seen = false;
  return steps.map(({ position, full, differences }) => {
    const prediction = seen ? method.predict(position) : undefined;
    if (full) method.observe(position, feature(position), differences);
    seen ||= full;
    return prediction;
  });
}
