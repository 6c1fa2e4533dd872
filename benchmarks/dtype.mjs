/**
 * What linear layers in fewer bits gain and cost: time of a full step against float32, memory, the error of each layer, of
 * the output, and of images.
 *
 *     npm run build && node benchmarks/dtype.mjs --model DIR [--rounds 5 --images 1 --threads 2 --draw 6 --steps 20]
 *
 * DIR is a DiT in diffusers' layout, with its transformer in one file of safetensors. All types run in turn in every
 * round, in reverse order every other round; ratios are formed within a round. --draw compares so many images of each
 * type, 0 by default. Memory is that of the whole process and its engines.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { DiffusionPipeline } from "femo";
import { psnr } from "femo/metrics";
import { Backbone, Conditioning, weightsIn } from "../dist/denoising/index.js";
import { Graph } from "../dist/graph/index.js";
import { dit, ditConfigFromJson } from "../dist/models/dit.js";
import { createNodeEngine } from "../dist/platform/node/engine.js";
import { nodeFolder } from "../dist/platform/node/folder.js";
import { keptCheckpoint } from "../dist/platform/node/kept.js";
import { graphWriter } from "../dist/runtime/graph-writer.js";
import { Network } from "../dist/runtime/network.js";
import { Sessions } from "../dist/runtime/sessions.js";
import { TorchGenerator } from "../dist/samplers/index.js";
import { modelLinears } from "../dist/tracing/index.js";
import { isPacked, openCheckpoint } from "../dist/weights/index.js";
import { median } from "./median.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    rounds: { type: "string", default: "5" },
    images: { type: "string", default: "1" },
    threads: { type: "string" },
    draw: { type: "string", default: "0" },
    steps: { type: "string", default: "20" },
  },
});
if (!values.model) throw new Error("--model DIR is needed");
const [rounds, batch] = [Number(values.rounds), 2 * Number(values.images)];
const config = ditConfigFromJson(JSON.parse(readFileSync(`${values.model}/transformer/config.json`, "utf8")));
const checkpoint = await openCheckpoint(nodeFolder(values.model), "transformer/diffusion_pytorch_model.safetensors");
const model = dit(config);
const rows = Array.from({ length: batch }, (_, i) => (i < batch / 2 ? 0 : 1));

/** Resident megabytes of this process and its engine's: now and at most, so far. */
const memory = () => {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").match(/\d+/g) ?? [];
  const statuses = ["self", ...children].map((pid) => readFileSync(`/proc/${pid}/status`, "utf8"));
  return ["VmRSS", "VmHWM"]
    .map((name) => statuses.map((status) => Number(status.match(new RegExp(`${name}:\\s+(\\d+)`))?.[1])))
    .map((kilobytes) => Math.round(kilobytes.reduce((a, b) => a + b) / 1024))
    .join(", at most ");
};

/** Norm of the difference, over that of what it should be. */
const relative = (found, wanted) => {
  let [error, size] = [0, 0];
  wanted.forEach((y, i) => {
    error += (found[i] - y) ** 2;
    size += y ** 2;
  });
  return Math.sqrt(error / size);
};

const linears = modelLinears(model);
const fewer = /** @type {const} */ (["int8", "int4"]);
const variants = [];
for (const dtype of [...fewer, /** @type {const} */ ("float32")]) {
  const engine = createNodeEngine(values.threads ? { threads: Number(values.threads) } : {});
  const sessions = new Sessions(engine, Number.POSITIVE_INFINITY);
  const start = performance.now();
  const backbone = await new Backbone(model, checkpoint, sessions).in(
    dtype,
    (weights) => keptCheckpoint(weights),
    () => linears,
  );
  console.log(`${dtype} weights made or found in ${((performance.now() - start) / 1e3).toFixed(1)} s`);
  const label = {
    dtype: /** @type {const} */ ("int64"),
    dims: [2],
    data: BigInt64Array.of(0n, BigInt(config.numEmbedsAdaNorm)),
  };
  const conditioning = await Conditioning.compute(backbone, dtype, [500], { count: 2, feeds: { class_label: label } });
  console.log(`${dtype}: conditioning loaded, ${memory()} MB`);
  await backbone.load({});
  console.log(`${dtype}: step loaded, ${memory()} MB`);
  const dims = [batch, ...backbone.sampleDims({})];
  const sample = { dtype: /** @type {const} */ ("float32"), dims, data: new TorchGenerator(3).randn(dims) };
  const feeds = { sample, ...conditioning.feeds({}, 0, rows, {}) };
  const run = () => backbone.run({}, { feeds, fetch: ["output"] });
  variants.push({
    dtype,
    engine,
    sessions,
    run,
    output: /** @type {Float32Array} */ ((await run()).outputs.output?.data),
    wall: /** @type {number[]} */ ([]),
  });
  console.log(`${dtype}: run once, ${memory()} MB`);
}

const plain = variants[fewer.length];
for (const { dtype, output } of variants.slice(0, fewer.length)) {
  console.log(`${dtype}: relative L2 error of the output ${relative(output, plain.output).toExponential(2)}`);
}

for (let round = 0; round < rounds; round++) {
  for (const variant of round % 2 ? variants.toReversed() : variants)
    variant.wall.push((await variant.run()).durationMs);
}
console.log(`full step: ${variants.map(({ dtype, wall }) => `${dtype} ${median(wall).toFixed(0)} ms`).join(", ")}`);
for (const { dtype, wall } of variants.slice(0, fewer.length)) {
  const ratios = wall.map((ms, i) => ms / plain.wall[i]);
  const spread = [Math.min(...ratios), Math.max(...ratios)].map((ratio) => ratio.toFixed(2)).join("-");
  console.log(`  ${dtype} / float32 ${median(ratios).toFixed(2)} (${spread})`);
}

/** Of each layer: errors of the weights, and of the product with normal numbers. */
for (const dtype of fewer) {
  const weights = await keptCheckpoint(weightsIn(dtype, checkpoint, () => linears));
  const errors = /** @type {Record<string, [number, number][]>} */ ({});
  for (const name of [...linears.main, ...linears.modulation]) {
    const tensor = weights.get(name);
    if (!tensor || !isPacked(tensor)) continue; // stays in float32
    const [out, width] = checkpoint.get(name)?.shape ?? [];
    const graph = new Graph();
    graph.output("y", graph.input("x", [32, width]).linear(graph.weight(name, [out, width]), null));
    const x = {
      dtype: /** @type {const} */ ("float32"),
      dims: [32, width],
      data: new TorchGenerator(5).randn([32, width]),
    };
    const [found, wanted] = await Promise.all(
      [weights, checkpoint].map(async (from) => {
        const network = new Network(graph, graphWriter(from), plain.sessions);
        const { outputs } = await network.run({ feeds: { x }, fetch: ["y"] });
        await network.release();
        return /** @type {Float32Array} */ (outputs.y?.data);
      }),
    );
    const kind = name.replace(/^\D*\d+\./, "").replace(/\.weight$/, "");
    const w = relative(await weights.readTensor(name), await checkpoint.readTensor(name));
    errors[kind] = [...(errors[kind] ?? []), [w, relative(found, wanted)]];
  }
  for (const [kind, list] of Object.entries(errors)) {
    const [w, y] = [0, 1].map((i) =>
      list.map((one) => (100 * one[i]).toFixed(2)).toSorted((a, b) => Number(a) - Number(b)),
    );
    const shown = (all) => `${all[0]}-${all.at(-1)} %`;
    console.log(`${dtype} ${kind}: error of the weights ${shown(w)}, of the product ${shown(y)}`);
  }
}
for (const { engine } of variants) await engine.close();

const count = Number(values.draw);
if (count > 0) {
  const drawn = /** @type {Record<string, readonly import("femo").GeneratedImage[]>} */ ({});
  for (const dtype of [...fewer, /** @type {const} */ ("float32")]) {
    const pipeline = await DiffusionPipeline.fromPretrained(values.model, { dtype });
    const classLabels = Array.from({ length: count }, (_, i) => i % config.numEmbedsAdaNorm);
    const { images } = await pipeline.generate({ classLabels, seed: 1, numInferenceSteps: Number(values.steps) });
    await pipeline.close();
    drawn[dtype] = images;
  }
  for (const dtype of fewer) {
    const quality = drawn[dtype].map((image, i) => psnr(image, drawn.float32[i]));
    const mean = quality.reduce((a, b) => a + b) / count;
    const spread = [Math.min(...quality), Math.max(...quality)].map((db) => db.toFixed(1)).join(" to ");
    console.log(`${dtype}: ${count} images of ${values.steps} steps, PSNR ${mean.toFixed(1)} dB (${spread})`);
  }
}
