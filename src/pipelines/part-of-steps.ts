import { FemoError } from "../errors.js";
import { roundHalfEven, type Sampler, sampleRange } from "../samplers/index.js";
import type { Drawing } from "./family.js";

/** What a request says of the steps that it runs. */
type Part = Pick<Drawing, "strength" | "denoisingStart" | "denoisingEnd">;

/**
 * The steps that a request runs, chosen as diffusers does: without those that an image leaves out which begins with a picture,
 * or from the fraction `denoisingStart` of the training timesteps on; and up to `denoisingEnd`.
 * @param steps how many were asked for; a sampler may have more calls
 * @param numTrainTimesteps T
 * @throws FemoError E_OPTION if none is left
 */
export function partOfSteps(sampler: Sampler, part: Part, steps: number, numTrainTimesteps: number): Sampler {
  const { strength, denoisingStart, denoisingEnd } = part;
  const { length } = sampler.timesteps;
  const before = (fraction: number): number => {
    const cutoff = roundHalfEven(numTrainTimesteps - fraction * numTrainTimesteps);
    return sampler.timesteps.filter((t) => t >= cutoff).length;
  };
  const skipped = strength === undefined ? 0 : skippedSteps(strength, steps);
  const begin = denoisingStart === undefined ? skipped : before(denoisingStart);
  const end = denoisingEnd === undefined ? length : before(denoisingEnd);
  if (begin === 0 && end === length) return sampler;
  if (begin < end) return sampleRange(sampler, begin, end);
  const name = denoisingEnd === undefined ? "denoisingStart" : "denoisingEnd";
  throw new FemoError(
    "E_OPTION",
    `${name}: expected a fraction that leaves some of ${length} steps to run, found ${part[name]}: take more steps, or another`,
  );
}

/**
 * Steps that an image which begins with a picture leaves out.
 * @throws FemoError E_OPTION if none is left
 */
function skippedSteps(strength: number, steps: number): number {
  const run = Math.min(Math.trunc(steps * strength), steps);
  if (strength <= 1 && run >= 1) return steps - run;
  throw new FemoError(
    "E_OPTION",
    `strength: expected more than 0, at most 1, and with ${steps} steps at least ${1 / steps}, found ${strength}`,
  );
}
