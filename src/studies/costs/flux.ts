import { productsAnd } from "../../graph/index.js";
import { everyInterval } from "../../methods/schedules/index.js";
import { flux } from "../../models/flux.js";
import { fluxDev } from "../../models/flux-config.js";
import { countFull, type ModelCosts, type Run, type RunCost } from "./run.js";
import { fluxFreshRatio, freshTokens } from "./tokens.js";
import { counter, type PlacedNode, within } from "./walk.js";

const NUM_STEPS = 50;
const FIRST_ENHANCE = 3;
/** 1024x1024 pixels and the longest prompt. */
const SIZE = { rows: 64, columns: 64, text: 512 };
/** Up to this interval the printed ToCa rows are from code that keeps attention before its projection. */
const LAST_PROJECTED_INTERVAL = 6;

/**
 * How the printed FLUX rows count, with the package calflops: products twice their multiply-adds, a norm 4 an element,
 * an activation 1; the whole model. Not counted are softmax, the norms of queries and keys, the rotary embedding,
 * gates, forecasts and biases.
 */
const calflops = productsAnd({ perElement: { LayerNormalization: 4, Gelu: 1, Sigmoid: 1 } });

/** calflops tells a step's cost in words, "74.39 TFLOPS" or "22.71 GFLOPS"; the rows are sums of what it said. */
function told(flops: number): number {
  const unit = flops >= 1e12 ? 1e12 : 1e9;
  return Number((flops / unit).toFixed(2)) * unit;
}

/** Costs of runs of FLUX.1-dev at 1024x1024, 50 steps, one image. */
export function fluxCosts(): ModelCosts {
  const count = counter(flux(fluxDev), { batch: 1, ...SIZE }, calflops);
  const [double, single] = ["transformer_blocks.", "single_transformer_blocks."];
  const [imageTokens, tokens] = [SIZE.rows * SIZE.columns, SIZE.rows * SIZE.columns + SIZE.text];
  const inModule = (placed: PlacedNode): boolean => within(placed, "module");
  const ofAttention = ({ weight, node }: PlacedNode): boolean =>
    node.op === "MultiHeadAttention" || (weight?.includes(".attn.") ?? false);

  const whole = count(() => true);
  const outside = count((placed) => !inModule(placed)); // embedders, modulations, final layer
  const ofSingles = count((placed) => within(placed, "module", single));
  const projections = count(({ weight }) => /\.(to_out\.0|to_add_out)\.weight$/.test(weight ?? ""));
  const modulationsOfSingles = count((placed) => within(placed, "hoisted", single));
  const blocksProducts = counter(flux(fluxDev), { batch: 1, ...SIZE }, productsAnd({}))(inModule);

  const [full, reuse, delta] = [whole, outside, whole - ofSingles].map(told) as [number, number, number];
  const projected = told(outside + projections);
  // The printed digits need the modulations of the double blocks and not those of the single ones. The public code runs
  // them the other way round, which is 0.05 less an image.
  const skipped = told(outside - modulationsOfSingles);

  /** Everything but attention, on the tokens chosen: in double blocks the MLPs, in single blocks MLP and last product. */
  const partial = (ratio: number, project: boolean): number => {
    let flops = outside + (project ? projections : 0);
    for (let layer = 0; layer < fluxDev.numLayers; layer++) {
      const ofToken = count((placed) => within(placed, "module", `${double}${layer}.ff`)) / tokens;
      const share = fluxFreshRatio(ratio, layer, "double");
      flops += (freshTokens(share, imageTokens) + freshTokens(share, SIZE.text)) * ofToken;
    }
    for (let layer = 0; layer < fluxDev.numSingleLayers; layer++) {
      const inBlock = (placed: PlacedNode): boolean => within(placed, "module", `${single}${layer}.`);
      const ofToken = count((placed) => inBlock(placed) && !ofAttention(placed)) / tokens;
      flops += freshTokens(fluxFreshRatio(ratio, layer, "single"), tokens) * ofToken;
    }
    return told(flops);
  };

  const costOf = (run: Run): RunCost => {
    switch (run.kind) {
      case "steps":
        return { flops: run.steps * full, fullSteps: run.steps };
      case "forecast":
        return cached(run.interval, () => reuse);
      case "fora":
        // The row with the shortest interval is from ToCa's code: no warm-up, attention kept before its projection.
        return run.interval === 3 ? cached(3, () => projected, 1) : cached(run.interval, () => reuse);
      case "deltaDit":
        // A branch of the public code makes every second of the cached steps in a row one that reuses all modules.
        return cached(run.interval, (since) => (since % 2 === 1 ? delta : reuse), 1);
      case "toca": {
        const step = partial(run.ratio, run.interval <= LAST_PROJECTED_INTERVAL);
        return cached(run.interval, () => step);
      }
      case "duca": {
        const step = partial(run.ratio, false);
        return cached(run.interval, (since) => (since % 2 === 1 ? skipped : step));
      }
      case "teaCache":
        return { flops: run.computed * blocksProducts, fullSteps: run.computed };
      case "unknown":
        return { reason: run.reason };
    }
  };
  const counting =
    "whole model, as calflops does: 2 a multiply-add, norms 4 and activations 1 an element; softmax, rotary embedding, " +
    "gates, biases and forecasts nothing; each step rounded to two decimals, in T or in G";
  return { counting, uncached: NUM_STEPS * full, costOf };

  /** @param other cost of a step so many after the last full one */
  function cached(interval: number, other: (since: number) => number, firstEnhance = FIRST_ENHANCE): RunCost {
    const schedule = everyInterval({ interval, firstEnhance });
    let [flops, since] = [0, 0];
    for (let step = 0; step < NUM_STEPS; step++) {
      since = schedule.isFull(step) ? 0 : since + 1;
      flops += since === 0 ? full : other(since);
    }
    return { flops, fullSteps: countFull(schedule, NUM_STEPS) };
  }
}
