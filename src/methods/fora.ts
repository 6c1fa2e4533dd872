import * as z from "zod/mini";
import { type Forecaster, fora as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, placed, placedDefaults, scheduled } from "./scheduled.js";

/** The last feature again (Selvaraju et al., arXiv 2407.01425). */
export const foraMethod = defineMethod({
  name: "fora",
  title: "FORA",
  schema: z.strictObject({ method: z.literal("fora"), ...placed }),
  defaults: placedDefaults,
  knob: intervalKnob,
  build: (settings) => scheduled(settings, forecast() as Forecaster),
});

/** FORA as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const fora = methodValue(foraMethod);
