import * as z from "zod/mini";
import { defineMethod, methodValue } from "./method.js";
import { intervalKnob } from "./scheduled.js";
import { tokenwise, tokenwiseDefaults, tokenwiseMethod } from "./tokenwise.js";

/** ToCa, of whose steps between full ones every other computes no block at all (Zou et al., arXiv 2412.18911). */
export const ducaMethod = defineMethod({
  name: "duca",
  title: "DuCa",
  schema: z.strictObject({ method: z.literal("duca"), ...tokenwise }),
  defaults: { ...tokenwiseDefaults, ratio: 0.05, bonus: 0.8 },
  knob: intervalKnob,
  build: (settings, model) => tokenwiseMethod(settings, model, true),
});

/** DuCa as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const duca = methodValue(ducaMethod);
