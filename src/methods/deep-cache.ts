import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { fora } from "./forecasts/index.js";
import { common, defineMethod, methodValue, type Policy } from "./method.js";
import { intervalKnob, keptAt, schedulePolicy } from "./scheduled.js";
import { crowdedSteps, everyInterval } from "./schedules/index.js";

/**
 * DeepCache (Ma et al., arXiv 2312.00858): steps in between compute the shallow layers of a U-Net on either side of a hidden
 * state, which stays as it was at the last full step. Other forecasts of the same state are those of any method with levels,
 * at the level of that state.
 */
export const deepCacheMethod = defineMethod({
  name: "deepCache",
  title: "DeepCache",
  schema: z.strictObject({
    method: z.literal("deepCache"),
    ...common,
    /** N: a full step every so many steps, or, if they are not even, so many times fewer than there are steps. */
    interval: z.int().check(z.minimum(1)),
    /**
     * Which state: what enters the layer of the way up that has so many behind it. 0 is the cheapest. In the paper's code layer
     * l and block b are 3 l + b + 1.
     */
    cacheBranchId: z.int().check(z.nonnegative()),
    /** Full steps at even distances; else they are dense around `center`. */
    uniform: z.boolean(),
    /** The step around which they are dense. */
    center: z.int().check(z.nonnegative()),
    /** How dense, above 1. */
    power: z.number().check(z.minimum(1), z.maximum(4)),
  }),
  defaults: { interval: 3, cacheBranchId: 0, uniform: true, center: 15, power: 1.4 },
  knob: intervalKnob,
  build({ interval, cacheBranchId, uniform, center, power }, { levels }) {
    const level = `deep.${cacheBranchId}`;
    if (!levels.includes(level)) {
      const count = levels.filter((name) => name.startsWith("deep.")).length;
      const wanted =
        count > 0 ? `cacheBranchId: expected 0 to ${count - 1}, found ${cacheBranchId}` : "expected a U-Net";
      throw new FemoError("E_OPTION", `cache: deepCache: ${wanted}`);
    }
    const fullSteps = (numSteps: number): ReadonlySet<number> =>
      new Set(crowdedSteps({ numSteps, count: Math.ceil(numSteps / interval), center, power }));
    return {
      cuts: keptAt(level),
      forecaster: fora(),
      measure: false,
      firstDifference: 0,
      ...(!uniform && { checkSteps: fullSteps }),
      policy: uniform ? schedulePolicy(everyInterval({ interval, firstEnhance: 1 })) : listed(fullSteps),
    };
  },
});

/** @param stepsOf the full steps, of how many steps there are */
const listed = (stepsOf: (numSteps: number) => ReadonlySet<number>): Policy<ReadonlySet<number> | undefined> => ({
  looks: [],
  start: () => undefined,
  decide(known, { step, numSteps, due }) {
    const memory = known ?? stepsOf(numSteps);
    return { memory, kind: due || memory.has(step) ? "full" : "forecast" };
  },
});

/** DeepCache as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const deepCache = methodValue(deepCacheMethod);
