import { FemoError } from "../../errors.js";

/** DBCache's masks by how many steps they compute, the most first. */
export const stepsMaskNames = ["slow", "medium", "fast", "ultra"] as const;
export type StepsMaskName = (typeof stepsMaskNames)[number];

/** Runs of computed steps, and of those between them that need not be. */
interface Runs {
  readonly compute: readonly number[];
  readonly cache: readonly number[];
}

/** The number of steps that the runs below are of. */
const DESIGNED_FOR = 28;
const FEWEST = 16;
const runsOf: Readonly<Record<StepsMaskName, Runs>> = {
  slow: { compute: [8, 3, 3, 2, 1, 1], cache: [1, 2, 2, 2, 3] },
  medium: { compute: [6, 2, 2, 2, 2, 1], cache: [1, 3, 3, 3, 3] },
  fast: { compute: [6, 1, 1, 1, 1, 1], cache: [1, 3, 4, 5, 4] },
  ultra: { compute: [4, 1, 1, 1, 1], cache: [2, 5, 6, 7] },
};
/** Of distilled models, whatever the name. */
const few: Readonly<Record<number, Runs>> = {
  4: { compute: [2, 1], cache: [1] },
  6: { compute: [3, 1], cache: [2] },
};

/**
 * cache-dit's mask of that name for so many steps: 1 computes, 0 need not; the last step computes.
 * @throws FemoError E_OPTION if there is none for so few steps
 */
export function stepsMask(name: StepsMaskName, numSteps: number): number[] {
  const designed = few[numSteps] ?? (numSteps >= FEWEST ? runsOf[name] : undefined);
  if (!designed) {
    throw new FemoError(
      "E_OPTION",
      `cache: stepsMask: "${name}" is for 4, 6, or ${FEWEST} steps and more, found ${numSteps}: give the mask itself`,
    );
  }
  const runs = { compute: [...designed.compute], cache: [...designed.cache] };
  if (numSteps > DESIGNED_FOR) stretch(runs, designed, numSteps);
  shorten(runs, numSteps);
  const mask = Array.from({ length: Math.max(runs.compute.length, runs.cache.length) }, (_, i) => [
    ...new Array<number>(runs.compute[i] ?? 0).fill(1),
    ...new Array<number>(runs.cache[i] ?? 0).fill(0),
  ]).flat();
  return mask.with(-1, 1);
}

interface Growing {
  readonly compute: number[];
  readonly cache: number[];
}

const total = ({ compute, cache }: Runs): number => [...compute, ...cache].reduce((sum, length) => sum + length, 0);

/** Lengthens run after run, each in proportion, until they reach so many steps; the last one gains a step each time round. */
function stretch(runs: Growing, { compute, cache }: Runs, numSteps: number): void {
  const more = (length: number): number => Math.max(Math.floor((length * numSteps) / (2 * DESIGNED_FOR)), 1);
  for (;;) {
    for (const [i, length] of cache.entries()) {
      for (const [grown, by] of [
        [runs.compute, more(compute[i] as number)],
        [runs.cache, more(length)],
      ] as const) {
        grown[i] = (grown[i] as number) + by;
        if (total(runs) >= numSteps) return;
      }
    }
    runs.compute.push((runs.compute.pop() as number) + 1);
  }
}

/** Takes what is too much from the last runs, a step of either kind in turn. */
function shorten(runs: Growing, numSteps: number): void {
  for (let turn = 0; total(runs) > numSteps; turn++) {
    const shortened = turn % 2 === 0 ? runs.cache : runs.compute;
    const left = (shortened.pop() ?? 0) - 1;
    if (left > 0) shortened.push(left);
  }
}
