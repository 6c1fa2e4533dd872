import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { fora } from "./forecasts/index.js";
import { common, defineMethod, listOf, methodValue, type Policy } from "./method.js";
import { keptAt } from "./scheduled.js";

/** Published ratios, of calibrations with as many steps as there are. */
const published = {
  flux: [
    1, 1.21094, 1.11719, 1.07812, 1.0625, 1.03906, 1.03125, 1.03906, 1.02344, 1.03125, 1.02344, 0.98047, 1.01562,
    1.00781, 1, 1.00781, 1, 1.00781, 1, 1, 0.99609, 0.99609, 0.98047, 0.98828, 0.96484, 0.95703, 0.93359, 0.89062,
  ],
} as const;
const publishedNames = ["flux"] as const satisfies readonly (keyof typeof published)[];

/** The step that the original code for FLUX never skips, of its calibration's. */
const NEVER_SKIPPED = { index: 11, of: 28 };

/** How the magnitude of the network's change runs over the steps is much the same for all images (Ma et al., arXiv 2506.09045). */
export const magCacheMethod = defineMethod({
  name: "magCache",
  title: "MagCache",
  schema: z.strictObject({
    method: z.literal("magCache"),
    ...common,
    /** |R_i| / |R_(i-1)| at each step of a calibrated run, R the change across all blocks, the first 1; or whose they are. */
    ratios: z.optional(z.union([listOf(z.number().check(z.positive())), z.enum(publishedNames)])),
    /** Of the error that a run of forecast steps may add up to; 0 computes every step. */
    threshold: z.number().check(z.nonnegative()),
    /** K: forecast steps in a row. */
    maxSkipSteps: z.int().check(z.nonnegative()),
    /** Share of the steps, at the start, that are full. */
    retentionRatio: z.number().check(z.minimum(0), z.maximum(1)),
    /** The level at which features are kept and used again, one of the model's or "x0". */
    granularity: z.string(),
    /** As the original code for FLUX, which never skips the step that maps to index 11 of 28. */
    compat: z.boolean(),
  }),
  defaults: { threshold: 0.06, maxSkipSteps: 3, retentionRatio: 0.2, granularity: "stack", compat: false },
  knob: { field: "threshold", from: 0, to: 10 },
  build({ ratios, granularity, ...limits }) {
    if (ratios === undefined) {
      throw new FemoError(
        "E_OPTION",
        'cache: magCache: ratios: expected those of the model or "flux", found none: calibrate it (femo calibrate magCache)',
      );
    }
    return {
      cuts: keptAt(granularity),
      forecaster: fora(),
      measure: false,
      firstDifference: 0,
      policy: byMagnitude(typeof ratios === "string" ? published[ratios] : ratios, limits) as Policy,
    };
  },
});

/** MagCache as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const magCache = methodValue(magCacheMethod);

interface Limits {
  readonly threshold: number;
  readonly maxSkipSteps: number;
  readonly retentionRatio: number;
  readonly compat: boolean;
}

/** Of the steps since the last full one: the product of their ratios, how many, and the sum of |1 - product|. */
interface Skipped {
  readonly product: number;
  readonly count: number;
  readonly error: number;
}

const NONE: Skipped = { product: 1, count: 0, error: 0 };

function byMagnitude(ratios: readonly number[], limits: Limits): Policy<Skipped> {
  const { threshold, maxSkipSteps, retentionRatio, compat } = limits;
  return {
    looks: [],
    start: () => NONE,
    decide({ product, count, error }, { step, numSteps, due }) {
      const kept = compat && nearest(step, numSteps, NEVER_SKIPPED.of) === NEVER_SKIPPED.index;
      const early = step === 0 || step < Math.floor(retentionRatio * numSteps + 0.5);
      if (due || early || kept || threshold === 0) return { memory: NONE, kind: "full" };
      const scaled = product * (ratios[nearest(step, numSteps, ratios.length)] as number);
      const next = { product: scaled, count: count + 1, error: error + Math.abs(1 - scaled) };
      const skips = next.error <= threshold && next.count <= maxSkipSteps;
      return skips ? { memory: next, kind: "forecast" } : { memory: NONE, kind: "full" };
    },
  };
}

/** The index in a list of `length` that lies where a step does among the steps. */
const nearest = (step: number, numSteps: number, length: number): number =>
  numSteps > 1 ? Math.round((step * (length - 1)) / (numSteps - 1)) : 0;
