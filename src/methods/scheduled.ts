import * as z from "zod/mini";
import type { Forecaster } from "./forecasts/index.js";
import { biasCorrections, momentumSeeds } from "./forecasts/index.js";
import { common, type Knob, listOf, type Method, type Policy, X0 } from "./method.js";
import { everyInterval, fullSteps, type Schedule } from "./schedules/index.js";

/** Fields of every method whose full steps are known beforehand. */
export const placed = {
  ...common,
  /** N: a full step every so many steps. */
  interval: z.int().check(z.minimum(1)),
  /** Full steps at the start. */
  firstEnhance: z.int().check(z.minimum(1)),
  /**
   * In place of the interval the full steps themselves, step 0 among them, or how many, of a model on which so many were
   * placed. `firstEnhance` still says when differences begin.
   */
  fullSteps: z.optional(z.union([listOf(z.int().check(z.nonnegative())), z.int().check(z.minimum(1))])),
  /** The level at which features are kept and forecast, one of the model's or "x0". */
  granularity: z.string(),
  /** Report the forecast error of every full step; costs one small product per feature. */
  measure: z.boolean(),
};
/** The schedule of the FEMO paper for DiT (femo.md section 2), at its level. */
export const placedDefaults = { interval: 5, firstEnhance: 2, granularity: "module", measure: true };

/** What such a method's cost goes by. */
export const intervalKnob: Knob = { field: "interval", from: 1, to: 50 };

type Placed = z.infer<z.ZodMiniObject<typeof placed>>;

export const order = z.int().check(z.minimum(1), z.maximum(4));
const beta = z.number().check(z.gt(-1), z.lt(1));

/** Fields of the methods with momentum. */
export const momentum = {
  order,
  /** One for all images, or one for each in turn. */
  beta: z.union([beta, listOf(beta)]),
  /** What the averages are before their first update. */
  momentumSeed: z.enum(momentumSeeds),
  biasCorrection: z.enum(biasCorrections),
};

/** Order and coefficient of the FEMO paper for DiT, with the best reading of what it leaves open (femo.md section 5). */
export const momentumDefaults = {
  order: 2,
  beta: -0.02,
  momentumSeed: "zero",
  biasCorrection: "updates",
} as const;

/** Full steps by a schedule, forecasts in between. */
export function scheduled(settings: Placed, forecaster: Forecaster): Method {
  return {
    cuts: keptAt(settings.granularity),
    forecaster,
    measure: settings.measure,
    firstDifference: Math.max(0, settings.firstEnhance - 2),
    policy: schedulePolicy(listed(settings.fullSteps) ? fullSteps(settings.fullSteps) : everyInterval(settings)),
  };
}

/** A number of full steps becomes a list before a method is built (`placeFullSteps`). */
const listed = (steps: Placed["fullSteps"]): steps is readonly number[] => typeof steps === "object";

/** The two kinds of step of a method that computes all or forecasts a level. */
export const keptAt = (level: string): Pick<Method, "cuts">["cuts"] =>
  level === X0 ? { full: {}, forecast: X0 } : { full: { capture: { level } }, forecast: { forecast: { level } } };

/** Full steps by a schedule, whatever the number of steps. */
export const schedulePolicy = ({ isFull }: Schedule): Policy => ({
  looks: [],
  start: () => undefined,
  decide: (memory, { step, due }) => ({ memory, kind: due || isFull(step) ? "full" : "forecast" }),
});
