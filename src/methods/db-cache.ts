import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { type Forecaster, femo, foca, fora, taylorSeer } from "./forecasts/index.js";
import { behindFront } from "./front.js";
import { type At, common, defineMethod, listOf, methodValue, type Policy } from "./method.js";
import { order } from "./scheduled.js";
import { stepsMask, stepsMaskNames } from "./schedules/index.js";

/** What the blocks between front and back change is forecast by. */
const calibrators = ["none", "taylorSeer", "foca", "femo"] as const;

const count = z.int().check(z.nonnegative());
const schema = z.strictObject({
  method: z.literal("dbCache"),
  ...common,
  /** Fn: blocks that run before every step, and whose change decides. */
  frontBlocks: z.int().check(z.minimum(1)),
  /** Bn: blocks at the end that are always computed. */
  backBlocks: count,
  /** Forecast while the front's change has moved by less than this share since the last full step: 0 never, 1 or more always. */
  threshold: z.number().check(z.nonnegative()),
  /** Before this step those that are a multiple of `warmupInterval` are full. */
  maxWarmupSteps: count,
  warmupInterval: z.int().check(z.minimum(1)),
  /** Forecast steps in all. Default: no limit. */
  maxCachedSteps: z.optional(count),
  /** Forecast steps in a row. Default: no limit. */
  maxContinuousCachedSteps: z.optional(count),
  /** What all changes that were compared with the threshold may add up to before everything is computed. Default: no limit. */
  maxAccumulatedChange: z.optional(z.number().check(z.nonnegative())),
  /** 1 for each step that is full, 0 for the others; or a mask of cache-dit's. Default: none. */
  stepsMask: z.optional(z.union([listOf(z.union([z.literal(0), z.literal(1)])), z.enum(stepsMaskNames)])),
  /** Where the mask has 0, forecast ("static"), or decide ("dynamic"). */
  maskPolicy: z.enum(["static", "dynamic"]),
  /** By what the middle's change is forecast; "none": it is used again. */
  calibrator: z.enum(calibrators),
  /** Of "taylorSeer" and "femo". */
  order,
  /** Of "femo". */
  beta: z.number().check(z.gt(-1), z.lt(1)),
  /**
   * As cache-dit counts: forecast steps in a row are miscounted after a gap, and "taylorSeer" forms its first
   * differences at step 3.
   */
  compat: z.boolean(),
});
type Settings = z.infer<typeof schema>;

/** First blocks that look, a middle that is cached, last blocks that mend (DBCache, vipshop/cache-dit). */
export const dbCacheMethod = defineMethod({
  name: "dbCache",
  title: "DBCache",
  schema,
  defaults: {
    frontBlocks: 1,
    backBlocks: 0,
    threshold: 0.08,
    maxWarmupSteps: 8,
    warmupInterval: 1,
    maskPolicy: "dynamic",
    calibrator: "none",
    order: 1,
    beta: -0.2,
    compat: false,
  },
  knob: { field: "threshold", from: 0, to: 1 },
  build(settings, model) {
    const { frontBlocks, backBlocks, calibrator, compat } = settings;
    const { cuts, look } = behindFront(model, { front: frontBlocks, back: backBlocks });
    const policy: Policy<Counts> = { looks: [look], start: () => NOTHING, decide: decision(settings) };
    return {
      cuts,
      forecaster: forecasterOf(settings),
      measure: false,
      firstDifference: compat && calibrator === "taylorSeer" ? 2 : 0,
      checkSteps: (numSteps) => checkMask(settings.stepsMask, numSteps),
      policy: policy as Policy,
    };
  },
});

/** DBCache as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const dbCache = methodValue(dbCacheMethod);

/** Of the steps so far. */
interface Counts {
  /** Forecast steps, and the last of them. */
  readonly cached: number;
  readonly lastCached: number;
  /** Of them in a row. */
  readonly run: number;
  /** Sum of the changes that were compared with the threshold. */
  readonly changes: number;
}

const NOTHING: Counts = { cached: 0, lastCached: -1, run: 0, changes: 0 };

function decision(settings: Settings): Policy<Counts>["decide"] {
  const { threshold, maskPolicy, compat } = settings;
  const { maxCachedSteps = Infinity, maxContinuousCachedSteps = Infinity, maxAccumulatedChange = Infinity } = settings;
  const computed = (counts: Counts) => ({ memory: compat ? counts : { ...counts, run: 0 }, kind: "full" });
  const cached = (counts: Counts, step: number) => ({ memory: oneMore(counts, step, compat), kind: "forecast" });

  return (counts, at, [change]) => {
    const { step, due } = at;
    const mask = maskOf(settings.stepsMask, at);
    if (due || change === undefined || warmsUp(settings, mask, step)) return computed(counts);
    if (mask?.[step] === 1) return computed(counts);
    if (mask && maskPolicy === "static") return cached(counts, step);
    if (counts.cached >= maxCachedSteps) return computed(counts);
    if (counts.run >= maxContinuousCachedSteps) return computed({ ...counts, run: 0 });
    if (counts.changes >= maxAccumulatedChange) return computed(counts);
    const compared = { ...counts, changes: counts.changes + change };
    const near = threshold >= 1 || change < threshold;
    return near ? cached(compared, step) : computed(compared);
  };
}

/** The counts after one forecast step more. */
function oneMore(counts: Counts, step: number, compat: boolean): Counts {
  return {
    ...counts,
    cached: counts.cached + 1,
    lastCached: step,
    run: compat ? miscounted(counts, step) : counts.run + 1,
  };
}

/** cache-dit's count of steps in a row: the second of them counts as two if the count was 0, and none that follows a gap. */
function miscounted({ cached, lastCached, run }: Counts, step: number): number {
  if (cached === 0) return 1;
  if (lastCached !== step - 1) return run;
  return run === 0 ? 2 : run + 1;
}

/** A mask ends the warm-up where its first run of ones does. */
function warmsUp(settings: Settings, mask: readonly number[] | undefined, step: number): boolean {
  const { maxWarmupSteps, warmupInterval } = settings;
  const firstZero = mask?.indexOf(0) ?? -1;
  const end = firstZero < 0 ? maxWarmupSteps : Math.min(maxWarmupSteps, firstZero);
  return step < end && step % warmupInterval === 0;
}

const maskOf = (mask: Settings["stepsMask"], { numSteps }: At): readonly number[] | undefined =>
  typeof mask === "string" ? stepsMask(mask, numSteps) : mask;

/** @throws FemoError E_OPTION if the mask is not of so many steps */
function checkMask(mask: Settings["stepsMask"], numSteps: number): void {
  if (typeof mask === "string") stepsMask(mask, numSteps);
  else if (mask && mask.length !== numSteps) {
    throw new FemoError(
      "E_OPTION",
      `cache: stepsMask: expected ${numSteps} numbers, one for each step, found ${mask.length}`,
    );
  }
}

function forecasterOf({ calibrator, order, beta }: Settings): Forecaster {
  switch (calibrator) {
    case "none":
      return fora();
    case "taylorSeer":
      return taylorSeer(order) as Forecaster;
    case "foca":
      return foca() as Forecaster;
    case "femo":
      return femo({ order, beta }) as Forecaster;
  }
}
