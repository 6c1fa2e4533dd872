import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import type { Sparse } from "../tracing/index.js";
import { type Forecaster, fora as forecast } from "./forecasts/index.js";
import { common, defineMethod, type Method, methodValue, type Policy } from "./method.js";
import { intervalKnob } from "./scheduled.js";

const share = z.number().check(z.positive(), z.maximum(1));
const group = z.int().check(z.minimum(1));

/**
 * Chipmunk (github.com/sandyresearch/chipmunk): between full steps each MLP computes anew only the neurons that have changed
 * most, and each attention only the keys that get most, over what the last full step gave. Neurons are chosen at every
 * step, and none at random.
 */
export const chipmunkMethod = defineMethod({
  name: "chipmunk",
  title: "Chipmunk",
  schema: z.strictObject({
    method: z.literal("chipmunk"),
    ...common,
    /** Full steps are the first two, and every step whose number is a multiple of this. */
    interval: z.int().check(z.minimum(1)),
    /** Share of an MLP's hidden neurons that sparse steps compute. */
    mlpColumns: share,
    /** Neurons are chosen for so many tokens together. */
    mlpGroup: group,
    /** Share of the keys that sparse steps attend to. */
    attentionKeys: share,
    /** Keys are chosen for so many queries together, for each head. */
    attentionGroup: group,
    /** The first so many blocks are computed whole at every step. */
    denseLayers: z.int().check(z.nonnegative()),
  }),
  defaults: {
    interval: 10,
    mlpColumns: 0.3,
    mlpGroup: 128,
    attentionKeys: 0.165,
    attentionGroup: 192,
    denseLayers: 2,
  },
  knob: intervalKnob,
  build({ method: _, interval, errorBound, ...shares }, { chains, levels }): Method {
    if (Object.keys(chains).length === 0) {
      throw new FemoError(
        "E_OPTION",
        "cache: chipmunk: expected blocks in a row whose MLPs and attention it can compute in part, found none, as of a U-Net, " +
          "which does most of its work in convolutions and in MLPs with gates",
      );
    }
    const sparse = (step: Sparse["step"]): { sparse: Sparse } => ({ sparse: { step, ...shares } });
    // What the guard measures: how far the last full step's output would have been off, had it been taken as it was.
    const guarded = errorBound !== undefined && { capture: { level: levels.at(-1) as string } };
    return {
      cuts: { full: { ...sparse("keep"), ...guarded }, sparse: sparse("correct") },
      ...(guarded && { forecaster: forecast() as Forecaster }),
      measure: false,
      firstDifference: 0,
      policy: everyMultipleOf(interval),
    };
  },
});

const everyMultipleOf = (interval: number): Policy => ({
  looks: [],
  start: () => undefined,
  decide: (memory, { step, due }) => ({ memory, kind: due || step === 1 || step % interval === 0 ? "full" : "sparse" }),
});

/** Chipmunk as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const chipmunk = methodValue(chipmunkMethod);
