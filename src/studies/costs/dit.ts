import { productsAnd } from "../../graph/index.js";
import { dit, ditXL2 } from "../../models/dit.js";
import { BATCH } from "../../tracing/index.js";
import type { ModelCosts } from "./run.js";
import { type Counting, inModule, type Step, stepsOn, sumOf, weightOf } from "./steps.js";

const GUIDED = 2; // an image is two samples: with its class, and without

/**
 * How the repositories of ToCa, DuCa and TaylorSeer count on DiT: products twice their multiply-adds, but once those
 * of adaLN; softmax 5 a score, GELU 6, a norm and the scaling of the queries 1 an element; the blocks alone, without
 * embedders and final layer, gates, forecasts and biases.
 */
const modules: Counting = {
  convention: productsAnd({ score: 5, query: 1, perElement: { Gelu: 6 } }),
  counts: inModule,
};
const norms: Counting = {
  convention: productsAnd({ perElement: { LayerNormalization: 1 }, multiplyAdd: 0 }),
  counts: inModule,
};
const adaLN: Counting = {
  convention: productsAnd({ multiplyAdd: 1 }),
  counts: (node) => weightOf(node).endsWith(".norm1.linear.weight"),
};

/** Costs of runs of DiT-XL/2 at 256x256, DDIM, one guided image. */
export function ditCosts(): ModelCosts {
  const stepsOf = stepsOn(dit(ditXL2), { [BATCH]: GUIDED });
  const [full] = stepsOf({ cache: "none", numSteps: 1 }) as [Step];
  const costOf = (step: Step): number => {
    // Where tokens are chosen the code counts the norms of all tokens, and those before attention, which is kept.
    const normed = step.cut.tokens ? full : step;
    return step.flops(adaLN) + step.flops(modules) + normed.flops(norms);
  };
  const counting =
    "blocks alone, two samples an image: 2 a multiply-add (adaLN 1), softmax 5 a score, GELU 6, norms and scaling of " +
    "queries 1 an element; gates, biases and forecasts nothing";
  return { counting, costOf: (run) => sumOf(stepsOf(run), costOf) };
}
