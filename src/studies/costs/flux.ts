import { productsAnd } from "../../graph/index.js";
import { flux } from "../../models/flux.js";
import { fluxDev } from "../../models/flux-config.js";
import { BATCH, partKinds } from "../../tracing/index.js";
import type { ModelCosts, Run } from "./run.js";
import { type Counting, inModule, type Step, stepsOn, sumOf, weightOf, within } from "./steps.js";

/** One image of 1024x1024 pixels with the longest prompt. */
const SIZES = { [BATCH]: 1, rows: 64, columns: 64, text: 512 };

/**
 * How the printed FLUX rows count, with the package calflops: products twice their multiply-adds, a norm 4 an element,
 * an activation 1; the whole model. Not counted are softmax, the norms of queries and keys, the rotary embedding,
 * gates, forecasts and biases.
 */
const calflops: Counting = {
  convention: productsAnd({ perElement: { LayerNormalization: 4, Gelu: 1, Sigmoid: 1 } }),
  counts: (node) => !within(node, partKinds.forecast),
};
/** How TeaCache's rows count: a full step is the products of the blocks, and the others are nothing. */
const blocksProducts: Counting = { convention: productsAnd({}), counts: inModule };
/** What attention goes through last. */
const projections: Counting = {
  ...calflops,
  counts: (node) => /\.(to_out\.0|to_add_out)\.weight$/.test(weightOf(node)),
};
/** Without the modulations of the single blocks. */
const lessModulated: Counting = {
  ...calflops,
  counts: (node) => calflops.counts(node) && !within(node, partKinds.hoisted, "single_transformer_blocks."),
};

/** calflops tells a step's cost in words, "74.39 TFLOPS" or "22.71 GFLOPS"; the rows are sums of what it said. */
function told(flops: number): number {
  const unit = flops >= 1e12 ? 1e12 : 1e9;
  return Number((flops / unit).toFixed(2)) * unit;
}

/** Costs of runs of FLUX.1-dev at 1024x1024, one image. */
export function fluxCosts(): ModelCosts {
  const stepsOf = stepsOn(flux(fluxDev), SIZES);
  const [full, reuse] = stepsOf({ cache: { method: "fora", interval: 2, firstEnhance: 1 }, numSteps: 2 }) as [
    Step,
    Step,
  ];
  const costOf = (step: Step, { projects }: Run): number => {
    // Where femo's graph has the final layer alone, the printed digits need all that is outside the modules but the
    // modulations of the single blocks. The public code runs these and not the double blocks', 0.05 less an image.
    if (step.kind === "skip") return told(reuse.flops(lessModulated));
    const projected = projects && step.kind !== "full" ? full.flops(projections) : 0;
    return told(step.flops(calflops) + projected);
  };
  const counting =
    "whole model, as calflops does: 2 a multiply-add, norms 4 and activations 1 an element; softmax, rotary embedding, " +
    "gates, biases and forecasts nothing; each step rounded to two decimals, in T or in G";
  return {
    counting,
    costOf(run) {
      const isTeaCache = typeof run.cache === "object" && run.cache.method === "teaCache";
      return sumOf(stepsOf(run), (step) => (isTeaCache ? step.flops(blocksProducts) : costOf(step, run)));
    },
  };
}
