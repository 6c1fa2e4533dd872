import * as z from "zod/mini";
import { defineMethod, methodValue } from "./method.js";
import { uncachedMethod } from "./none.js";
import { solverTargets } from "./solver-targets.js";

/**
 * A solver that was fitted to the model takes the sampler's place: every one of its few steps runs the network, from timesteps
 * and with weights that bring images near to those of many steps.
 */
export const calibratedMethod = defineMethod({
  name: "calibrated",
  title: "Calibrated",
  schema: z.strictObject({
    method: z.literal("calibrated"),
    /** Runs of the network, of which there are solvers. */
    fullSteps: z.int().check(z.minimum(1)),
    /**
     * What its images were to come near to: those of the converged sampler, or the uncached ones. Default: the former, if there
     * is such a solver.
     */
    target: z.optional(z.enum(solverTargets)),
  }),
  defaults: { fullSteps: 7 },
  build: () => uncachedMethod,
});

/** Calibrated as the `cache` of a request. */
export const calibrated = methodValue(calibratedMethod);
