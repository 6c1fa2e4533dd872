/**
 * How much of the FLOPs speed-up is reached in time, and what a forecast step and a state update cost.
 *
 *     npm run bench [-- --rounds 7 --images 1 --steps 50 --threads 2 --dtype int8 --json]
 *
 * All variants run in turn in every round, in reverse order every other round; ratios are formed within a round, and
 * medians are given with the least and the greatest. Nothing is compared between runs.
 */
import { parseArgs } from "node:util";
import { DiffusionPipeline } from "femo";
import { median } from "./median.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "avatars-dit" },
    rounds: { type: "string", default: "7" },
    images: { type: "string", default: "1" },
    steps: { type: "string", default: "50" },
    threads: { type: "string" },
    dtype: { type: "string", default: "float32" },
    json: { type: "boolean", default: false },
  },
});
const [rounds, images, numInferenceSteps] = [values.rounds, values.images, values.steps].map(Number);
const pipeline = await DiffusionPipeline.fromPretrained(values.model, {
  dtype: /** @type {import("femo").ModelDtype} */ (values.dtype), // fromPretrained checks it
  ...(values.threads && { threads: Number(values.threads) }),
});

const intervals = [3, 5, 7, 9];
/** @type {(Exclude<import("femo").CacheOptions, string | { method: "none" }> & { name: string })[]} */
const methods = [
  { name: "FEMO, order 1", method: "femo", order: 1, measure: false },
  { name: "FEMO, order 2, errors measured", method: "femo", order: 2, measure: true },
];
const levels = ["module", "stack", "output"];

/** @param {import("femo").CacheOptions} cache */
const draw = (cache) =>
  pipeline.generate({
    classLabels: 0,
    numImagesPerPrompt: images,
    batchSize: images,
    numInferenceSteps,
    seed: 1,
    outputType: "latent",
    cache,
  });
/** @param {import("femo").GenerationResult} result */
const timeOf = ({ report }) => report.conditioningMs + report.stepsMs;
/**
 * @param {import("femo").GenerationResult} result
 * @param {import("femo").StepRecord["kind"]} kind
 */
const stepTimes = ({ report }, kind) =>
  report.batches.flatMap(({ steps }) => steps.filter((step) => step.kind === kind).map((step) => step.durationMs));

const rows = [];
for (const { name, ...method } of methods) {
  for (const granularity of levels) {
    // One level at a time: graphs that hold all weights replace each other.
    const variants = intervals.map((interval) => ({ ...method, granularity, interval }));
    await draw("none");
    await draw(variants[0]);
    /** @type {{ overFlops: number[], wallOverFlops: number[], forecast: number[], update: number[], flops: number }[]} */
    const samples = variants.map(() => ({ overFlops: [], wallOverFlops: [], forecast: [], update: [], flops: 0 }));
    for (let round = 0; round < rounds; round++) {
      const order = variants.map((_, i) => i);
      const uncached = round % 2 ? undefined : await draw("none");
      const results = [];
      for (const i of round % 2 ? order.reverse() : order) results[i] = await draw(variants[i]);
      const reference = uncached ?? (await draw("none"));
      const step = median(stepTimes(reference, "full"));
      results.forEach((result, i) => {
        const { speedup } = result.report.flops;
        samples[i].flops = speedup;
        samples[i].overFlops.push(timeOf(reference) / timeOf(result) / speedup);
        samples[i].wallOverFlops.push(reference.report.totalMs / result.report.totalMs / speedup);
        samples[i].forecast.push(median(stepTimes(result, "forecast")) / step);
        samples[i].update.push(median(stepTimes(result, "full")) / step - 1);
      });
    }
    rows.push(...samples.map((sample, i) => ({ name, granularity, interval: intervals[i], ...sample })));
  }
}
await pipeline.close();

if (values.json) {
  console.log(
    JSON.stringify({ model: values.model, dtype: values.dtype, rounds, images, numInferenceSteps, rows }, null, 2),
  );
} else {
  const ratio = (list) =>
    `${median(list).toFixed(2)} (${Math.min(...list).toFixed(2)}-${Math.max(...list).toFixed(2)})`.padEnd(18);
  console.log(
    `${values.model}, ${values.dtype}, ${images} guided image(s), ${numInferenceSteps} steps, ${rounds} rounds: median (least-greatest)`,
  );
  console.log(
    "speed-up reached: measured over FLOPs, in the runtime and by the wall clock; costs relative to a full step\n",
  );
  console.log(
    "method                          level   N  FLOPs   reached           wall              forecast step     state update",
  );
  for (const row of rows) {
    console.log(
      [
        row.name.padEnd(31),
        row.granularity.padEnd(7),
        row.interval,
        `${row.flops.toFixed(2)}x`.padStart(6),
        ` ${ratio(row.overFlops)}`,
        ratio(row.wallOverFlops),
        ratio(row.forecast),
        ratio(row.update),
      ].join(" "),
    );
  }
}
