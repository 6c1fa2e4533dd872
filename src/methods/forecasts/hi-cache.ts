import { type Differences, type Forecaster, overDifferences } from "./forecaster.js";

/**
 * HiCache: TaylorSeer with Hermite polynomials in place of powers, F^ = sum of Di sigma^i Hi(sigma x) / i!, x signed
 * steps later, over the raw differences D0 .. Dm. Order 1 is D0 + 2 sigma^2 x D1: the whole slope, which is TaylorSeer,
 * at sigma = 1 / sqrt 2, half of it at 0.5. Even orders move the forecast at x = 0 too, as H2(0) = -2.
 * @param order m >= 1
 * @param sigma > 0
 */
export const hiCache = (order: number, sigma: number): Forecaster<Differences> =>
  overDifferences(order, (x, i) => hermiteTerm(sigma, x, i));

/** sigma^i Hi(sigma x) / i! of physicists' Hermite polynomials: H(i+1)(y) = 2 y Hi - 2 i H(i-1). */
function hermiteTerm(sigma: number, x: number, i: number): number {
  let [before, term] = [0, 1];
  for (let j = 0; j < i; j++) [before, term] = [term, (2 * sigma ** 2 * (x * term - before)) / (j + 1)];
  return term;
}
