import * as z from "zod/mini";
import { type Forecaster, foca as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, placed, placedDefaults, scheduled } from "./scheduled.js";

/** A forecast step corrected by the slope between the last two full steps (cache-dit's variant of FoCa). */
export const focaMethod = defineMethod({
  name: "foca",
  title: "FoCa",
  schema: z.strictObject({ method: z.literal("foca"), ...placed }),
  defaults: placedDefaults,
  knob: intervalKnob,
  build: (settings) => scheduled(settings, forecast() as Forecaster),
});

/** FoCa as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const foca = methodValue(focaMethod);
