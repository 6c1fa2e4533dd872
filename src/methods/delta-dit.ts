import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import type { Cut, Region } from "../tracing/index.js";
import { blocksOf } from "./blocks.js";
import { fora } from "./forecasts/index.js";
import { common, defineMethod, type Method, type ModelFacts, methodValue, type Policy } from "./method.js";
import { intervalKnob } from "./scheduled.js";

/** Early steps use again what the rear blocks changed, late ones what the front blocks did (Chen et al., arXiv 2406.01125). */
export const deltaDitMethod = defineMethod({
  name: "deltaDit",
  title: "Delta-DiT",
  schema: z.strictObject({
    method: z.literal("deltaDit"),
    ...common,
    /** N: a full step every so many, counted back from the last. */
    interval: z.int().check(z.minimum(1)),
    /** N_c: cached blocks. Default: half of all; of models with several chains all blocks behind the first chain. */
    blocks: z.optional(z.int().check(z.minimum(1))),
    /**
     * Share of the steps, from the first on, in which the rear is cached; then the front is. Default: 0, which came closest
     * on the embedded model; of models with several chains 1, as it was run on FLUX.
     */
    boundary: z.optional(z.number().check(z.minimum(0), z.maximum(1))),
    /**
     * As the public code runs it on FLUX: full steps count from the first, and of the cached steps in a row every second
     * uses all modules again, a branch taken by mistake.
     */
    compat: z.boolean(),
  }),
  defaults: { interval: 3, compat: false },
  knob: intervalKnob,
  build({ interval, compat, ...chosen }, model) {
    const { blocks, boundary } = resolved(chosen, model);
    return {
      cuts: deltaCuts(model, { blocks, boundary, compat }),
      forecaster: fora(),
      measure: false,
      firstDifference: 0,
      policy: halves(interval, boundary, compat) as Policy,
    };
  },
});

/** Delta-DiT as the `cache` of a request; the model's preset fills in the fields that are left out. */
export const deltaDit = methodValue(deltaDitMethod);

/** What is left out follows from the model. */
function resolved(chosen: { blocks?: number | undefined; boundary?: number | undefined }, model: ModelFacts) {
  const { count, firstChain } = blocksOf(model);
  const behind = count - (model.chains[firstChain] ?? 0);
  const usual =
    behind > 0 ? { blocks: behind, boundary: 1 } : { blocks: Math.max(1, Math.floor(count / 2)), boundary: 0 };
  return { blocks: chosen.blocks ?? usual.blocks, boundary: chosen.boundary ?? usual.boundary };
}

/** @throws FemoError E_OPTION if front or rear is more than the model has, or both are cached and overlap */
function deltaCuts(
  model: ModelFacts,
  { blocks, boundary, compat }: { blocks: number; boundary: number; compat: boolean },
): Method["cuts"] {
  const { count, across } = blocksOf(model);
  const both = boundary > 0 && boundary < 1;
  const most = both ? Math.floor(count / 2) : count;
  if (blocks > most) {
    const why = both ? "half of the model's, as front and rear are both cached" : "the model's";
    throw new FemoError("E_OPTION", `cache: deltaDit: blocks: expected at most ${most}, ${why}, found ${blocks}`);
  }
  const regions: Record<string, Region> = {
    ...(boundary > 0 && { rear: across(count - blocks, count) }),
    ...(boundary < 1 && { front: across(0, blocks) }),
    ...(compat && { modules: { level: "module" } }),
  };
  const cached = Object.entries(regions).map(([kind, forecast]): [string, Cut] => [kind, { forecast }]);
  return { full: { capture: { any: Object.values(regions) } }, ...Object.fromEntries(cached) };
}

/** The memory is the last full step. */
const halves = (interval: number, boundary: number, compat: boolean): Policy<number> => ({
  looks: [],
  start: () => 0,
  decide(last, { step, numSteps, due }) {
    const isFull = (compat ? step : numSteps - 1 - step) % interval === 0;
    if (due || step === 0 || isFull) return { memory: step, kind: "full" };
    if (compat && (step - last) % 2 === 0) return { memory: last, kind: "modules" };
    return { memory: last, kind: step < boundary * numSteps ? "rear" : "front" };
  },
});
