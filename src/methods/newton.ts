import * as z from "zod/mini";
import { type Forecaster, newton as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, order, placed, placedDefaults, scheduled } from "./scheduled.js";

/** The polynomial through the last features, exact to its degree. */
export const newtonMethod = defineMethod({
  name: "newton",
  title: "Newton",
  schema: z.strictObject({ method: z.literal("newton"), ...placed, order }),
  defaults: { ...placedDefaults, order: 2 },
  knob: intervalKnob,
  build: (settings) => scheduled(settings, forecast(settings.order) as Forecaster),
});

/** Newton as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const newton = methodValue(newtonMethod);
