import * as z from "zod/mini";
import { defineMethod, type Method } from "./method.js";

/** Every step computed, and nothing kept. */
export const uncachedMethod: Method = {
  cuts: { full: {} },
  measure: false,
  firstDifference: 0,
  policy: { looks: [], start: () => undefined, decide: (memory) => ({ memory, kind: "full" }) },
};

/** {@link uncachedMethod} as what a request chooses. */
export const noneMethod = defineMethod({
  name: "none",
  title: "No cache",
  schema: z.strictObject({ method: z.literal("none") }),
  defaults: {},
  build: () => uncachedMethod,
});
