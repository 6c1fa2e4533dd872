/**
 * The quantile of the symmetric distribution Beta(a, a), in float64, for a in about 0.1 … 10: the x in 0 … 1 with
 * I_x(a, a) = p.
 *
 * Below ½ the incomplete beta function is x^a·Σ_k (1 − a)_k/k!·x^k/(a + k), whose terms fall like 2^(−k); in u = x^a it is
 * nearly a line, and Newton's method takes a few steps. Its value at ½ is half the whole, so that no gamma function is
 * needed; above ½ the distribution is mirrored.
 *
 * @param p in 0 … 1
 */
export function betaQuantile(p: number, a: number): number {
  if (p > 0.5) return 1 - betaQuantile(1 - p, a);
  const wanted = 2 * p * incompleteBeta(0.5, a);
  const half = 0.5 ** a;
  let u = Math.min(a * wanted, half); // the first term alone
  for (let i = 0; i < MAX_STEPS && u > 0; i++) {
    const x = u ** (1 / a);
    const next = Math.min(u - ((incompleteBeta(x, a) - wanted) * a) / (1 - x) ** (a - 1), half);
    if (Math.abs(next - u) <= Number.EPSILON * u) break;
    u = next;
  }
  return u ** (1 / a);
}

const MAX_STEPS = 30;

/** ∫ t^(a − 1)·(1 − t)^(a − 1) dt from 0 to x, for x up to ½. */
function incompleteBeta(x: number, a: number): number {
  let factor = 1; // (1 − a)_k/k!·x^k
  let sum = 1 / a;
  for (let k = 1; Math.abs(factor) > Number.EPSILON * sum; k++) {
    factor *= ((k - a) / k) * x;
    sum += factor / (a + k);
  }
  return x ** a * sum;
}
