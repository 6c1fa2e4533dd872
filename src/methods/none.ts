import * as z from "zod";
import { defineMethod } from "./method.js";

/** Every step computed. */
export const noneMethod = defineMethod({
  name: "none",
  title: "No cache",
  schema: z.strictObject({ method: z.literal("none") }),
  defaults: {},
  build: () => ({
    cuts: { full: {} },
    measure: false,
    firstDifference: 0,
    policy: { looks: [], start: () => undefined, decide: (memory) => ({ memory, kind: "full" }) },
  }),
});
