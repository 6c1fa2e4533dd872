import * as z from "zod/mini";
import { betaScopes, type Forecaster, adaptedFemo as forecast } from "./forecasts/index.js";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob, momentum, momentumDefaults, placed, placedDefaults, scheduled } from "./scheduled.js";

/** FEMO with a momentum coefficient of its own for every feature and sample: Adapted-FEMO (algorithm 1 of its appendix). */
export const adaptedFemoMethod = defineMethod({
  name: "adaptedFemo",
  title: "Adapted-FEMO",
  schema: z.strictObject({
    method: z.literal("adaptedFemo"),
    ...placed,
    ...momentum,
    /** Step of beta. */
    gamma: z.number().check(z.nonnegative()),
    /** How far beta may leave where it began. */
    delta: z.number().check(z.nonnegative()),
    betaPer: z.enum(betaScopes),
  }),
  defaults: { ...placedDefaults, ...momentumDefaults, gamma: 0.007, delta: 0.02, betaPer: "feature-row" },
  knob: intervalKnob,
  build: (settings) => scheduled(settings, forecast(settings) as Forecaster),
});

/** Adapted-FEMO as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const adaptedFemo = methodValue(adaptedFemoMethod);
