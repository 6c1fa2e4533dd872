/**
 * What 8-bit linear layers gain and cost: time of a full step against float32, memory, and the error of the output.
 *
 *     npm run build && node benchmarks/dtype.mjs --model DIR [--rounds 5 --images 1 --threads 2]
 *
 * DIR is a DiT in diffusers' layout, with its transformer in one file of safetensors. Both types run in turn in every
 * round, in reverse order every other round; ratios are formed within a round. CPU time is that of the whole process.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { Backbone, Conditioning } from "../dist/denoising/index.js";
import { dit, ditConfigFromJson } from "../dist/models/dit.js";
import { createNodeEngine } from "../dist/platform/node/engine.js";
import { nodeFolder } from "../dist/platform/node/folder.js";
import { quantizedCheckpoint } from "../dist/platform/node/quantized.js";
import { Sessions } from "../dist/runtime/sessions.js";
import { TorchGenerator } from "../dist/samplers/index.js";
import { openCheckpoint } from "../dist/weights/index.js";

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    rounds: { type: "string", default: "5" },
    images: { type: "string", default: "1" },
    threads: { type: "string" },
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
const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];

const variants = [];
for (const dtype of ["int8", "float32"]) {
  const engine = createNodeEngine(values.threads ? { threads: Number(values.threads) } : {});
  let backbone = new Backbone(model, checkpoint, new Sessions(engine, Number.POSITIVE_INFINITY));
  if (dtype === "int8") {
    const start = performance.now();
    backbone = await backbone.inInt8((weights, names) => quantizedCheckpoint(weights, names));
    console.log(`int8 weights made or found in ${((performance.now() - start) / 1e3).toFixed(1)} s`);
  }
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
    run,
    output: /** @type {Float32Array} */ ((await run()).outputs.output?.data),
    wall: /** @type {number[]} */ ([]),
  });
  console.log(`${dtype}: run once, ${memory()} MB`);
}

const [int8, float32] = variants;
let [error, size] = [0, 0];
float32.output.forEach((y, i) => {
  error += (int8.output[i] - y) ** 2;
  size += y ** 2;
});
console.log(`relative L2 error of the output: ${Math.sqrt(error / size).toExponential(2)}`);

for (let round = 0; round < rounds; round++) {
  for (const variant of round % 2 ? variants.toReversed() : variants)
    variant.wall.push((await variant.run()).durationMs);
}
const ratios = int8.wall.map((ms, i) => ms / float32.wall[i]);
const times = variants.map(({ dtype, wall }) => `${dtype} ${median(wall).toFixed(0)} ms`).join(", ");
const spread = [Math.min(...ratios), Math.max(...ratios)].map((ratio) => ratio.toFixed(2)).join("-");
console.log(`full step: ${times}; int8 / float32 ${median(ratios).toFixed(2)} (${spread})`);
for (const { engine } of variants) await engine.close();
