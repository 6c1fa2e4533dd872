/**
 * Time and memory of one guided image at full size, at every level: what a step costs beside the machine's own rate of
 * matrix products, how much of the FLOPs speed-up is reached, peak memory, and how soon the first step begins.
 *
 *     npm run build && node benchmarks/random-model.mjs --out xl2
 *     node benchmarks/full-size.mjs --model xl2 [--steps 50] [--intervals 3,5,7,9] [--threads 2]
 *
 * Every row is a fresh process, so that its peak memory is its own. It draws the image with every interval, and a few
 * uncached steps before and after, whose median stands for all of an uncached image: ratios are formed within a
 * process. Latents are not decoded. With the defaults about a quarter of an hour for DiT-XL/2 on two cores. Linux only:
 * peak memory is the kernel's VmHWM, of this process and its engine's together.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DiffusionPipeline } from "femo";
import { Graph, toOnnx } from "../dist/graph/index.js";
import { createNodeEngine } from "../dist/platform/node/engine.js";
import { median } from "./median.mjs";
import { megabytes } from "./memory.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    steps: { type: "string", default: "50" },
    intervals: { type: "string", default: "3,5,7,9" },
    threads: { type: "string", default: "2" },
    row: { type: "string" }, // of the process that measures it
  },
});
if (!values.model) throw new Error("--model DIR is needed");
const model = values.model;
const [numInferenceSteps, threads] = [values.steps, values.threads].map(Number);

/** @type {(Extract<import("femo").CacheOptions, { method: "femo" | "taylorSeer" }> & { name: string })[]} */
const rows = [
  { name: "FEMO, order 2", method: "femo", order: 2, measure: false, granularity: "output" },
  { name: "FEMO, order 2", method: "femo", order: 2, measure: false, granularity: "stack" },
  { name: "FEMO, order 2", method: "femo", order: 2, measure: false, granularity: "block" },
  { name: "TaylorSeer, order 2", method: "taylorSeer", order: 2, measure: false, granularity: "module" },
  { name: "FEMO, order 2", method: "femo", order: 2, measure: false, granularity: "module" },
  { name: "FEMO, order 2, errors measured", method: "femo", order: 2, measure: true, granularity: "module" },
];
/** Uncached steps of a run; the first two load and touch what they need. */
const UNCACHED = 7;
/** Floating-point operations per second of the model's largest products, on weights that stay in the cache. */
async function productRate() {
  const [tokens, width, hidden] = [512, 1152, 4608];
  const graph = new Graph();
  const weight = (out, input) => graph.constant(new Float32Array(out * input).fill(1e-4), [out, input]);
  const x = graph.input("x", [tokens, width]);
  graph.output("y", x.linear(weight(hidden, width), null).linear(weight(width, hidden), null));
  const engine = createNodeEngine({ threads });
  const session = await engine.load({ model: toOnnx(graph, () => undefined), files: [] });
  /** @type {Record<string, import("../dist/runtime/engine.js").HostTensor>} */
  const feeds = { x: { dtype: "float32", dims: [tokens, width], data: new Float32Array(tokens * width).fill(1) } };
  const times = [];
  for (let i = 0; i < 40; i++) times.push((await session.run({ feeds, fetch: [] })).durationMs);
  await engine.close();
  return (2 * 2 * tokens * width * hidden) / median(times.slice(5)) / 1e-3;
}

/** @param {typeof rows[number]} row */
async function measureRow({ name: _, ...cache }) {
  const start = performance.now();
  const pipeline = await DiffusionPipeline.fromPretrained(model, { threads });
  let beforeFirst;
  /** @param {Partial<import("femo").GenerateOptions>} options */
  const draw = (options) =>
    pipeline.generate({
      classLabels: 1,
      guidanceScale: 4,
      seed: 1,
      outputType: "latent",
      onStep: ({ durationMs }) => {
        beforeFirst ??= performance.now() - start - durationMs;
      },
      ...options,
    });
  /** @param {import("femo").GenerationResult} result */
  const timeOf = ({ report }) => report.conditioningMs + report.stepsMs;
  /**
   * @param {import("femo").GenerationResult} result
   * @param {import("femo").StepRecord["kind"]} kind
   */
  const stepsOf = ({ report }, kind) =>
    report.batches[0].steps.filter((step) => step.kind === kind).map((step) => step.durationMs);

  await draw({ numInferenceSteps: 9, cache: { ...cache, interval: 3 } }); // memory is touched for the first time
  const peak = megabytes("VmHWM");
  const before = stepsOf(await draw({ numInferenceSteps: UNCACHED }), "full").slice(2);
  const cached = [];
  for (const n of values.intervals.split(",").map(Number)) {
    cached.push({ n, result: await draw({ numInferenceSteps, cache: { ...cache, interval: n } }) });
  }
  const plain = await draw({ numInferenceSteps: UNCACHED });
  await pipeline.close();
  const uncached = [...before, ...stepsOf(plain, "full").slice(2)];
  const step = median(uncached);
  const { flops } = plain.report.batches[0].steps[0];
  const all = cached.map(({ result }) => result);
  return {
    beforeFirst,
    peak,
    stateBytes: all[0].report.stateBytes,
    step,
    flops,
    forecast: median(all.flatMap((result) => stepsOf(result, "forecast"))),
    update: median(all.flatMap((result) => stepsOf(result, "full"))) - step,
    reached: cached.map(({ n, result }) => ({
      n,
      flops: result.report.flops.speedup,
      wall: (plain.report.conditioningMs + step * numInferenceSteps) / timeOf(result),
    })),
  };
}

if (values.row !== undefined) {
  console.log(JSON.stringify(values.row === "rate" ? await productRate() : await measureRow(rows[Number(values.row)])));
} else {
  const child = (row) => {
    const args = ["--model", model, "--steps", values.steps, "--intervals", values.intervals];
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      [fileURLToPath(import.meta.url), ...args, "--threads", values.threads, "--row", String(row)],
      { encoding: "utf8" },
    );
    if (status !== 0) throw new Error(stderr);
    return JSON.parse(stdout);
  };
  const rate = child("rate");
  console.log(`${model}: one guided image, ${numInferenceSteps} steps, ${threads} threads`);
  console.log(`products alone: ${(rate / 1e9).toFixed(0)} GFLOP/s\n`);
  console.log(
    "| method | level | full step | share of the rate | forecast | update | state | peak | first step after |",
  );
  console.log("|---|---|---|---|---|---|---|---|---|");
  const found = rows.map((row, i) => {
    const result = child(i);
    const cells = [
      row.name,
      `\`${row.granularity}\``,
      `${(result.step / 1000).toFixed(2)} s`,
      (result.flops / result.step / 1e-3 / rate).toFixed(2),
      `${result.forecast.toFixed(1)} ms`,
      `${result.update.toFixed(0)} ms`,
      `${(result.stateBytes / 1e6).toFixed(1)} MB`,
      `${result.peak.toFixed(0)} MB`,
      `${(result.beforeFirst / 1000).toFixed(1)} s`,
    ];
    console.log(`| ${cells.join(" | ")} |`);
    return result;
  });
  console.log("\nmeasured speed-up, and its share of the FLOPs speed-up:\n");
  console.log(
    `| method | level | ${values.intervals
      .split(",")
      .map((n) => `N=${n}`)
      .join(" | ")} |`,
  );
  console.log(
    `|---|---|${values.intervals
      .split(",")
      .map(() => "---|")
      .join("")}`,
  );
  for (const [i, { reached }] of found.entries()) {
    const cells = reached.map(({ flops, wall }) => `${wall.toFixed(2)}x, ${(wall / flops).toFixed(2)}`);
    console.log(`| ${rows[i].name} | \`${rows[i].granularity}\` | ${cells.join(" | ")} |`);
  }
}
