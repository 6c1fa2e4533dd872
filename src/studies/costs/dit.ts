import { productsAnd } from "../../graph/index.js";
import { everyInterval, fullSteps } from "../../methods/schedules/index.js";
import { dit, ditXL2 } from "../../models/dit.js";
import { countFull, type ModelCosts, type Run, type RunCost } from "./run.js";
import { ditTokenwise, type LayerWork } from "./tokens.js";
import { counter, type PlacedNode, within } from "./walk.js";

const NUM_STEPS = 50;
const GUIDED = 2; // an image is two samples: with its class, and without
const FIRST_ENHANCE = 2;

/**
 * How the repositories of ToCa, DuCa and TaylorSeer count on DiT: products twice their multiply-adds, but once those
 * of adaLN; softmax 5 a score, GELU 6, a norm and the scaling of the queries 1 an element; the blocks alone, without
 * embedders and final layer, gates, forecasts and biases.
 */
const repositoryCounter = productsAnd({ score: 5, query: 1, perElement: { Gelu: 6, LayerNormalization: 1 } });

/** Costs of runs of DiT-XL/2 at 256x256, 50 DDIM steps, one guided image. */
export function ditCosts(): ModelCosts {
  const count = counter(dit(ditXL2), { batch: GUIDED }, repositoryCounter);
  const tokens = (ditXL2.sampleSize / ditXL2.patchSize) ** 2;
  const layers = Array.from({ length: ditXL2.numLayers }, (_, i) => {
    const name = `transformer_blocks.${i}.`;
    const inBlock = (placed: PlacedNode): boolean => within(placed, "module", name);
    const isNorm = ({ node }: PlacedNode): boolean => node.op === "LayerNormalization";
    return {
      adaLN: count(({ weight }) => weight === `${name}norm1.linear.weight`) / 2,
      modules: count(inBlock),
      norms: count((placed) => inBlock(placed) && isNorm(placed)),
      mlpOfToken: count((placed) => within(placed, "module", `${name}ff`) && !isNorm(placed)) / tokens,
    };
  });
  const costOfLayers = (work: readonly LayerWork[]): number =>
    layers.reduce((sum, { adaLN, modules, norms, mlpOfToken }, i) => {
      const what = work[i] as LayerWork;
      if (what === "skip") return sum;
      return sum + adaLN + (what === "full" ? modules : norms + what.tokens * mlpOfToken);
    }, 0);

  const full = costOfLayers(layers.map(() => "full"));
  const reuse = layers.reduce((sum, { adaLN }) => sum + adaLN, 0);
  const half = costOfLayers(layers.map((_, i) => (i < layers.length / 2 ? "full" : "skip")));
  /** A full step first, then whenever the index, which counts down, is a multiple of N. */
  const multiples = (interval: number) =>
    fullSteps(range(NUM_STEPS).filter((i) => i === 0 || (NUM_STEPS - 1 - i) % interval === 0));

  const costOf = (run: Run): RunCost => {
    switch (run.kind) {
      case "steps":
        return { flops: run.steps * full, fullSteps: run.steps };
      case "forecast":
        return mixed(everyInterval({ interval: run.interval, firstEnhance: FIRST_ENHANCE }), reuse);
      case "fora":
        return mixed(multiples(run.interval), reuse);
      case "deltaDit":
        return mixed(multiples(run.interval), half);
      case "toca":
      case "duca": {
        const { interval, ratio } = run;
        const options = { interval, ratio, dual: run.kind === "duca" };
        const steps = ditTokenwise(options, { numSteps: NUM_STEPS, numLayers: layers.length, tokens });
        const flops = steps.reduce((sum, work) => sum + costOfLayers(work), 0);
        return { flops, fullSteps: steps.filter((work) => work.every((what) => what === "full")).length };
      }
      case "teaCache":
        return { reason: "not run on DiT" };
      case "unknown":
        return { reason: run.reason };
    }
  };
  const counting =
    "blocks alone, two samples an image: 2 a multiply-add (adaLN 1), softmax 5 a score, GELU 6, norms and scaling of " +
    "queries 1 an element; gates, biases and forecasts nothing";
  return { counting, uncached: NUM_STEPS * full, costOf };

  function mixed(schedule: { isFull(step: number): boolean }, other: number): RunCost {
    const n = countFull(schedule, NUM_STEPS);
    return { flops: n * full + (NUM_STEPS - n) * other, fullSteps: n };
  }
}

const range = (n: number): number[] => Array.from({ length: n }, (_, i) => i);
