import { blend, type Forecaster, taylorTerm, unit, zeros } from "./forecaster.js";

/** Derivatives held after the last full step, and where that was. */
interface TaylorMemory {
  readonly levels: number;
  readonly last: number;
}

/**
 * TaylorSeer (Liu et al., arXiv 2503.06923; eqs. 4, 5 of the FEMO paper). S = [D0 .. Dm]; at a full step D'0 = F and
 * D'(i+1) = (D'i - Di) / delta, every order with the last signed distance; F^ = sum of Di x^i / i!.
 * Exact on affine features for any order m >= 1; order 0 is FORA.
 * @param order m >= 0
 */
export function taylorSeer(order: number): Forecaster<TaylorMemory> {
  const size = order + 1;
  return {
    stateSize: size,
    start: () => ({ levels: 0, last: 0 }),
    update({ levels, last }, { position, differences }) {
      const rows = [unit(size + 1, size)]; // D'0 = F
      for (let i = 0; differences && i < Math.min(order, levels); i++) {
        const delta = position - last;
        rows.push(blend(1 / delta, rows[i] as number[], -1 / delta, unit(size + 1, i)));
      }
      const held = rows.length;
      while (rows.length < size) rows.push(zeros(size + 1));
      return { memory: { levels: held, last: position }, rows };
    },
    combine: ({ levels, last }, position) =>
      levels === 0
        ? undefined
        : Array.from({ length: size }, (_, i) => (i < levels ? taylorTerm(position - last, i) : 0)),
  };
}

/** FORA (Selvaraju et al., arXiv 2407.01425; eq. 3 of the FEMO paper): the last feature again. S = [F]. */
export const fora = (): Forecaster => taylorSeer(0) as Forecaster;
