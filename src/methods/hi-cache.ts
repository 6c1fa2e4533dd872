import * as z from "zod/mini";
import { type Forecaster, hiCache as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, order, placed, placedDefaults, scheduled } from "./scheduled.js";

/** TaylorSeer on Hermite polynomials, which damp the slope. */
export const hiCacheMethod = defineMethod({
  name: "hiCache",
  title: "HiCache",
  schema: z.strictObject({
    method: z.literal("hiCache"),
    ...placed,
    order,
    /** The slope counts 2 sigma^2 times: 0.5 halves it, 1 / sqrt 2 leaves it as it is. */
    sigma: z.number().check(z.positive(), z.maximum(1)),
  }),
  defaults: { ...placedDefaults, order: 1, sigma: 0.5 },
  knob: intervalKnob,
  build: (settings) => scheduled(settings, forecast(settings.order, settings.sigma) as Forecaster),
});

/** HiCache as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const hiCache = methodValue(hiCacheMethod);
