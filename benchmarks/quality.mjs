/**
 * How close each method comes to the uncached images, at every level and interval.
 *
 *     npm run build && node benchmarks/quality.mjs [--images 64] [--steps 50] [--intervals 3,5,7,9] [--levels module,stack,output] [--orders 1,2] [--csv table.csv]
 *
 * PSNR and SSIM (means over images) against the uncached run of the same seeds; the classes take turns. The level
 * "block" gives the numbers of "stack", because residuals add up; tests/models proves it.
 */
import { appendFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { DiffusionPipeline, psnr, ssim } from "femo";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "avatars-dit" },
    images: { type: "string", default: "64" },
    steps: { type: "string", default: "50" },
    intervals: { type: "string", default: "3,5,7,9" },
    levels: { type: "string", default: "module,stack,output" },
    orders: { type: "string", default: "1,2" },
    seed: { type: "string", default: "1000" },
    guidance: { type: "string", default: "1.5" },
    csv: { type: "string" },
  },
});
const [images, numInferenceSteps, seed, guidanceScale] = [
  values.images,
  values.steps,
  values.seed,
  values.guidance,
].map(Number);
const pipeline = await DiffusionPipeline.fromPretrained(values.model);
const classLabels = Array.from({ length: images }, (_, i) => i % pipeline.classes.size);
const common = { classLabels, seed, guidanceScale, batchSize: 4 };

/** @type {Record<string, Exclude<import("femo").CacheOptions, string | { method: "none" }>>} */
const methods = {
  FORA: { method: "fora", measure: false },
  "TaylorSeer O=1": { method: "taylorSeer", order: 1, measure: false },
  "TaylorSeer O=2": { method: "taylorSeer", order: 2, measure: false },
  "Newton O=2": { method: "newton", order: 2, measure: false },
  "FEMO O=1 beta -0.2": { method: "femo", order: 1, beta: -0.2, measure: false },
  "FEMO O=1 beta -0.2, seed feature": { method: "femo", order: 1, beta: -0.2, momentumSeed: "feature", measure: false },
  "FEMO O=2 beta -0.02": { method: "femo", order: 2, beta: -0.02, measure: false },
  "FEMO O=2 beta -0.02, seed feature": {
    method: "femo",
    order: 2,
    beta: -0.02,
    momentumSeed: "feature",
    measure: false,
  },
  "FEMO O=2 beta -0.2": { method: "femo", order: 2, beta: -0.2, measure: false },
  "FEMO O=2 beta -0.5": { method: "femo", order: 2, beta: -0.5, measure: false },
  "Adapted-FEMO O=2 beta -0.02": { method: "adaptedFemo", order: 2, beta: -0.02, gamma: 0.007, delta: 0.02 },
};

const levels = values.levels.split(","); // generate checks them
const orders = values.orders.split(",").map(Number);
const chosen = Object.entries(methods).filter(
  ([, cache]) => !("order" in cache) || orders.includes(Number(cache.order)),
);

const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
const header = "level,interval,method,full_steps,flops_speedup,psnr_db,psnr_standard_error,ssim,state_bytes";
const show = (row) => {
  console.log(row);
  if (values.csv) appendFileSync(values.csv, `${row}\n`);
};
if (values.csv) writeFileSync(values.csv, "");
show(header);
const reference = await pipeline.generate({ ...common, numInferenceSteps });

/**
 * @param {string} level
 * @param {number} interval
 * @param {string} name
 * @param {Partial<import("femo").GenerateOptions>} options
 * @returns {Promise<number>} how many steps ran in full
 */
async function measure(level, interval, name, options) {
  const result = await pipeline.generate({ ...common, ...options });
  const db = result.images.map((image, i) => psnr(image, reference.images[i]));
  const likeness = result.images.map((image, i) => ssim(image, reference.images[i]));
  const spread = db.length > 1 ? Math.sqrt(mean(db.map((x) => (x - mean(db)) ** 2)) / (db.length - 1)) : undefined;
  const { report } = result;
  show(
    [
      level,
      interval,
      `"${name}"`,
      (report.fullSteps[0] ?? []).length,
      (reference.report.flops.done / report.flops.done).toFixed(2),
      mean(db).toFixed(2),
      spread?.toFixed(2) ?? "",
      mean(likeness).toFixed(4),
      report.stateBytes,
    ].join(","),
  );
  return (report.fullSteps[0] ?? []).length;
}

for (const interval of values.intervals.split(",").map(Number)) {
  let fullSteps = 0;
  for (const granularity of levels) {
    for (const [name, cache] of chosen) {
      fullSteps = await measure(granularity, interval, name, {
        numInferenceSteps,
        cache: { ...cache, granularity, interval },
      });
    }
  }
  await measure("-", interval, "fewer DDIM steps", { numInferenceSteps: fullSteps });
  await measure("-", interval, "fewer DPM-Solver++ steps", { numInferenceSteps: fullSteps, sampler: "dpm-solver++" });
}
await pipeline.close();
