import * as z from "zod/mini";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob } from "./scheduled.js";
import { tokenwise, tokenwiseDefaults, tokenwiseMethod } from "./tokenwise.js";

/** Between full steps the tokens that matter most are computed, the others kept (Zou et al., arXiv 2410.05317). */
export const tocaMethod = defineMethod({
  name: "toca",
  title: "ToCa",
  schema: z.strictObject({ method: z.literal("toca"), ...tokenwise }),
  defaults: tokenwiseDefaults,
  knob: intervalKnob,
  build: (settings, model) => tokenwiseMethod(settings, model, false),
});

/** ToCa as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const toca = methodValue(tocaMethod);
