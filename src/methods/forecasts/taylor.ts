import { type Differences, type Forecaster, overDifferences, taylorTerm } from "./forecaster.js";

/**
 * TaylorSeer (Liu et al., arXiv 2503.06923; eqs. 4, 5 of the FEMO paper): F^ = sum of Di x^i / i!, x signed steps
 * later, over the raw differences D0 .. Dm. S = the last m + 1 features, over which the differences are weights.
 * Exact on affine features for any order m >= 1; order 0 is FORA.
 * @param order m >= 0
 */
export const taylorSeer = (order: number): Forecaster<Differences> => overDifferences(order, taylorTerm);

/** FORA (Selvaraju et al., arXiv 2407.01425; eq. 3 of the FEMO paper): the last feature again. S = [F]. */
export const fora = (): Forecaster => taylorSeer(0) as Forecaster;
