import * as z from "zod/mini";
import { type Forecaster, taylorSeer } from "./forecasts/index.js";
import { behindFront } from "./front.js";
import { common, defineMethod, methodValue } from "./method.js";

/** While what the first block changes is much what it was at the last full step, so is the rest (ParaAttention). */
export const firstBlockMethod = defineMethod({
  name: "firstBlock",
  title: "First-block cache",
  schema: z.strictObject({
    method: z.literal("firstBlock"),
    ...common,
    /** A step is full unless the first block's change has moved by less than this share. */
    threshold: z.number().check(z.nonnegative()),
    /** Full steps at the start. */
    warmupSteps: z.int().check(z.nonnegative()),
    /** Of TaylorSeer's forecast of what the other blocks change; 0 is the same change again. */
    order: z.int().check(z.minimum(0), z.maximum(4)),
  }),
  defaults: { threshold: 0.08, warmupSteps: 0, order: 0 },
  knob: { field: "threshold", from: 0, to: 2 },
  build({ threshold, warmupSteps, order }, model) {
    const { cuts, look } = behindFront(model, { front: 1, back: 0 });
    return {
      cuts,
      forecaster: taylorSeer(order) as Forecaster,
      measure: false,
      firstDifference: 0,
      policy: {
        looks: [look],
        start: () => undefined,
        decide(memory, { step, due }, [change]) {
          const near = change !== undefined && change < threshold;
          return { memory, kind: near && step >= warmupSteps && !due ? "forecast" : "full" };
        },
      },
    };
  },
});

/** First-block cache as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const firstBlock = methodValue(firstBlockMethod);
