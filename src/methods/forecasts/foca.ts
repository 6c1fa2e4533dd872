import { blend, type Forecaster, unit } from "./forecaster.js";

/** Steps after a full one up to which the forecast is not damped. */
const TRUSTED = 3;

interface FocaMemory {
  /** Position of the last full step. */
  readonly last: number;
  /** Full steps so far. */
  readonly seen: number;
}

/**
 * FoCa as cache-dit has it: e steps after the last full step n, whose feature is F, with that of the full step before it, P,
 *
 *     F^ = F + e / 2 ((F - P) + (V1 - V2))
 *
 * V1, V2: the values of the last two steps, computed or forecast. From e = 4 on what is added is that of e = 3, times
 * 3 / e. Until there are two full steps it is F. Differences are not divided by their distance: of affine features it is
 * exact, up to e = 3, where full steps follow each other.
 *
 * S = [F, P, the value of the step before n]: with the last, everything since n is a combination of S. Positions are a
 * step apart.
 */
export function foca(): Forecaster<FocaMemory> {
  const valueAt = ({ seen }: FocaMemory, elapsed: number): number[] => {
    if (seen < 2) return unit(SIZE, 0);
    let [before, now] = [unit(SIZE, 2), unit(SIZE, 0)];
    for (let e = 1; e <= elapsed; e++) [before, now] = [now, corrected(e, now, before)];
    return now;
  };
  return {
    history: 2,
    recent: 2,
    averages: 1,
    start: () => ({ last: 0, seen: 0 }),
    update(memory, { position }) {
      const value = valueAt(memory, stepsBetween(memory.last, position) - 1);
      return { memory: { last: position, seen: memory.seen + 1 }, rows: [memory.seen > 0 ? [...value, 0] : FEATURE] };
    },
    combine: (memory, position) => (memory.seen > 0 ? valueAt(memory, stepsBetween(memory.last, position)) : undefined),
  };
}

const SIZE = 3;
/** Over [S; F]: before the first full step the only value there is. */
const FEATURE = unit(SIZE + 1, SIZE);

/** F^ e steps after F, over S, from the last two values. */
function corrected(e: number, now: readonly number[], before: readonly number[]): number[] {
  const trusted = Math.min(e, TRUSTED);
  const anchors = [1, -1, 0]; // F - P
  const change = blend(1, anchors, 1, blend(1, now, -1, before));
  return blend(1, unit(SIZE, 0), ((trusted / e) * trusted) / 2, change);
}

const stepsBetween = (a: number, b: number): number => Math.round(Math.abs(b - a));
