/**
 * What a step of one image costs on a device: uncached, and forecast at every level; beside PyTorch eager on the same device
 * in the same run, if a Python with diffusers is named.
 *
 *     npm run build && node benchmarks/random-model.mjs --out xl2     (or any model)
 *     node benchmarks/device.mjs --model xl2 --request '{"guidanceScale":4}' --device webgpu --dtypes float32,float16 --python python3
 *     node benchmarks/device.mjs --model avatars-flux --request '{"trueCfgScale":3,"negativePrompt":"","maxSequenceLength":48}' ... [--torch-dtypes float32,bfloat16]
 *
 * Medians over 15 steps, full steps and forecasts in turns, after an image that loads and touches everything; latents are
 * not decoded. Forecasts of order 2 by FEMO.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DiffusionPipeline } from "femo";
import { median } from "./median.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "avatars-flux" },
    device: { type: "string", default: "auto" },
    dtypes: { type: "string", default: "float32" },
    levels: { type: "string" },
    request: { type: "string", default: "{}" },
    python: { type: "string" },
    "torch-dtypes": { type: "string", default: "float32,bfloat16" },
  },
});
const STEPS = 15;
const INTERVAL = 3;

const ms = (value) => (value === undefined ? "" : `${value.toFixed(value < 10 ? 2 : 1)} ms`);

/** What femo and diffusers both draw. @param {DiffusionPipeline} pipeline */
function requestOf(pipeline) {
  const request = { ...JSON.parse(values.request), numInferenceSteps: STEPS };
  const [subject] = pipeline.examples;
  if (pipeline.subjectOption === "classLabels") return { ...request, classLabels: [subject] };
  const [height, width] = pipeline.imageSize(request);
  return { ...request, prompt: subject, height, width };
}

/**
 * @param {DiffusionPipeline} pipeline
 * @param {import("femo").GenerateOptions} request
 * @param {import("femo").CacheOptions} cache
 */
async function stepsOf(pipeline, request, cache) {
  const draw = () => pipeline.generate({ ...request, outputType: "latent", cache });
  await draw();
  const { report } = await draw();
  const [{ steps }] = report.batches;
  const times = (wanted) => steps.filter(({ full }) => full === wanted).map(({ durationMs }) => durationMs);
  return { full: median(times(true)), forecast: median(times(false)), stateBytes: report.stateBytes };
}

const device = /** @type {import("femo").Device} */ (values.device);
const rows = [];
let request;
for (const dtype of /** @type {NonNullable<import("femo").PretrainedOptions["dtype"]>[]} */ (
  values.dtypes.split(",")
)) {
  const pipeline = await DiffusionPipeline.fromPretrained(values.model, { device, dtype });
  console.error(`femo on ${pipeline.device.title}, ${dtype}`);
  request = requestOf(pipeline);
  const { full } = await stepsOf(pipeline, request, "none");
  rows.push([`femo, ${dtype}`, "", ms(full), "", ""]);
  for (const granularity of values.levels?.split(",") ?? pipeline.levels) {
    const found = await stepsOf(pipeline, request, {
      method: "femo",
      granularity,
      order: 2,
      interval: INTERVAL,
      measure: false,
    });
    const state = `${(found.stateBytes / 1e6).toFixed(1)} MB`;
    rows.push([`femo, ${dtype}`, `\`${granularity}\``, ms(found.full), ms(found.forecast), state]);
  }
  await pipeline.close();
}
if (values.python) {
  const script = fileURLToPath(new URL("peers/torch_step.py", import.meta.url));
  const folder = new URL(`../models/${values.model}`, import.meta.url);
  const model = /^avatars-/.test(values.model) ? fileURLToPath(folder) : values.model;
  const torchDevice = values.device === "cpu" ? "cpu" : "cuda";
  const snake = Object.entries(request).map(([name, value]) => [
    name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`),
    value,
  ]);
  const told = JSON.stringify(Object.fromEntries(snake));
  const args = ["--model", model, "--request", told, "--device", torchDevice, "--dtypes", values["torch-dtypes"]];
  const { stdout, status } = spawnSync(values.python, [script, ...args], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (status !== 0) throw new Error(`${script} failed`);
  for (const [dtype, full] of Object.entries(JSON.parse(stdout))) {
    rows.push([`PyTorch eager, ${dtype}`, "", ms(full), "", ""]);
  }
}
console.log("| | level | full step | forecast | state |\n|---|---|---|---|---|");
for (const row of rows) console.log(`| ${row.join(" | ")} |`);
