import * as z from "zod/mini";
import { type Forecaster, femo as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, momentum, momentumDefaults, placed, placedDefaults, scheduled } from "./scheduled.js";

/** Taylor's forecast with each difference replaced by its moving average: FEMO (eqs. 6 to 8 and 10). */
export const femoMethod = defineMethod({
  name: "femo",
  title: "FEMO",
  schema: z.strictObject({ method: z.literal("femo"), ...placed, ...momentum }),
  defaults: { ...placedDefaults, ...momentumDefaults },
  knob: intervalKnob,
  build: (settings) => scheduled(settings, forecast(settings) as Forecaster),
});

/** FEMO as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const femo = methodValue(femoMethod);
