import { blend, type Differences, type Forecaster, nextDifferences, noDifferences, zeros } from "./forecaster.js";

/**
 * HiCache: TaylorSeer with Hermite polynomials in place of powers, F^ = sum of Di sigma^i Hi(sigma x) / i!, x signed
 * steps later, over the raw differences D0 .. Dm. Order 1 is D0 + 2 sigma^2 x D1: the whole slope, which is TaylorSeer,
 * at sigma = 1 / sqrt 2, half of it at 0.5. Even orders move the forecast at x = 0 too, as H2(0) = -2.
 * @param order m >= 1
 * @param sigma > 0
 */
export function hiCache(order: number, sigma: number): Forecaster<Differences> {
  const history = order + 1;
  return {
    history,
    recent: history,
    averages: 0,
    start: () => noDifferences,
    update: (differences, step) => ({ memory: nextDifferences(differences, step, order), rows: [] }),
    combine({ last, rows }, position) {
      if (rows.length === 0) return undefined;
      const terms = hermiteTerms(sigma, position - last, rows.length);
      return rows.reduce((sum, row, i) => blend(1, sum, terms[i] as number, row), zeros(history));
    },
  };
}

/** sigma^i Hi(sigma x) / i! for i = 0 .. count - 1, of physicists' Hermite polynomials: H(i+1)(y) = 2 y Hi - 2 i H(i-1). */
function hermiteTerms(sigma: number, x: number, count: number): number[] {
  const terms = [1];
  for (let i = 0; i + 1 < count; i++) {
    const before = i > 0 ? (terms[i - 1] as number) : 0;
    terms.push((2 * sigma ** 2 * (x * (terms[i] as number) - before)) / (i + 1));
  }
  return terms;
}
