import { FemoError } from "../../errors.js";

/** Which steps run the whole network. */
export interface Schedule {
  /** True if the step, 0-based in sampling order, is a full one. */
  isFull(step: number): boolean;
}

/**
 * TaylorSeer's schedule: the first `firstEnhance` steps are full, then every `interval`-th,
 * counted from the last of them. `{ interval: 3, firstEnhance: 2 }` is 0 1 4 7 ..; no last step is forced.
 * @throws FemoError E_OPTION if either is not a positive integer
 */
export function everyInterval({ interval, firstEnhance }: { interval: number; firstEnhance: number }): Schedule {
  for (const [name, value] of Object.entries({ interval, firstEnhance })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new FemoError("E_OPTION", `${name}: expected a positive integer, found ${value}`);
    }
  }
  return { isFull: (step) => step < firstEnhance || (step - firstEnhance + 1) % interval === 0 };
}

/**
 * Any set of full steps.
 * @throws FemoError E_OPTION if the first step is not in it: there would be nothing to forecast from
 */
export function fullSteps(steps: readonly number[]): Schedule {
  const set = new Set(steps);
  if (!set.has(0)) throw new FemoError("E_OPTION", `fullSteps: step 0 must be full, found ${steps.join(" ")}`);
  const bad = steps.find((step) => !Number.isInteger(step) || step < 0);
  if (bad !== undefined) throw new FemoError("E_OPTION", `fullSteps: expected integers from 0 on, found ${bad}`);
  return { isFull: (step) => set.has(step) };
}
