import * as z from "zod/mini";
import { type Forecaster, taylorSeer as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, order, placed, placedDefaults, scheduled } from "./scheduled.js";

/** Taylor's polynomial from finite differences (Liu et al., arXiv 2503.06923). */
export const taylorSeerMethod = defineMethod({
  name: "taylorSeer",
  title: "TaylorSeer",
  schema: z.strictObject({ method: z.literal("taylorSeer"), ...placed, order }),
  defaults: { ...placedDefaults, order: 2 },
  knob: intervalKnob,
  build: (settings) => scheduled(settings, forecast(settings.order) as Forecaster),
});

/** TaylorSeer as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const taylorSeer = methodValue(taylorSeerMethod);
