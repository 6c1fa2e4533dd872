import { FemoError } from "../../errors.js";

/** How DeepCache's full steps crowd around one of them. */
export interface CrowdedSteps {
  readonly numSteps: number;
  /** How many full steps there are to be. */
  readonly count: number;
  /** The step around which they are dense. */
  readonly center: number;
  /** How much denser, above 1. */
  readonly power: number;
}

/** By how much the power is lowered where rounding lets two full steps fall together. */
const POWER_STEP = 0.02;

/**
 * The full steps of DeepCache's non-uniform schedule (Ma et al., arXiv 2312.00858, section 3.3, as its code has it): even
 * points between the roots of both ends' distances to the center, raised again. The root of a negative distance is complex; of
 * the powers the real part counts, cut to a whole number.
 * @returns ascending, from 0
 * @throws FemoError E_OPTION if no power down to 1 gives so many
 */
export function crowdedSteps({ numSteps, count, center, power }: CrowdedSteps): number[] {
  for (let p = power; p >= 1; p -= POWER_STEP) {
    const steps = pointsOf(numSteps, count, center, p);
    if (steps.length === count) return steps;
  }
  throw new FemoError(
    "E_OPTION",
    `cache: center, power: no schedule of ${count} full steps among ${numSteps} around ${center}: choose uniform`,
  );
}

function pointsOf(numSteps: number, count: number, center: number, power: number): number[] {
  const start = root(-center, power);
  const end = root(numSteps - center, power);
  const points = Array.from({ length: count + 1 }, (_, k) => {
    const share = k / count;
    const re = start.re + share * (end.re - start.re);
    const im = start.im + share * (end.im - start.im);
    return Math.trunc(Math.hypot(re, im) ** power * Math.cos(power * Math.atan2(im, re)));
  });
  const inner = [...new Set(points)].sort((a, b) => a - b).slice(1, -1);
  return [0, ...inner.map((point) => point + center)];
}

/** The principal value of x to the power 1 / power. */
function root(x: number, power: number): { readonly re: number; readonly im: number } {
  const [size, angle] = [Math.abs(x) ** (1 / power), x < 0 ? Math.PI / power : 0];
  return { re: size * Math.cos(angle), im: size * Math.sin(angle) };
}
