import * as z from "zod/mini";
import { type Forecaster, newton as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, order, placed, placedDefaults, scheduled } from "./scheduled.js";

/**
 * A line through the last two values, and once the next full step has come, a parabola in its place: the forecast steps
 * behind it are walked again, without another run of the network. At the level "x0" it is a linear multistep solver with
 * UniPC's corrector.
 */
export const hindsightMethod = defineMethod({
  name: "hindsight",
  title: "Hindsight",
  schema: z.strictObject({
    method: z.literal("hindsight"),
    ...placed,
    order,
    /** Order of the polynomial through the full steps on both sides, with which forecast steps are walked again. */
    between: order,
  }),
  defaults: { ...placedDefaults, firstEnhance: 1, granularity: "x0", order: 1, between: 2 },
  knob: intervalKnob,
  build: (settings) => ({
    ...scheduled(settings, forecast(settings.order, settings.between) as Forecaster),
    hindsight: true,
  }),
});

/** Hindsight as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const hindsight = methodValue(hindsightMethod);
