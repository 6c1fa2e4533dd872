/**
 * How close each method comes to the uncached images at the same cost, at every level, beside fewer steps of every sampler.
 *
 *     npm run build && node benchmarks/quality.mjs --csv table.csv [--methods all] [--speedups 3,5,7] [--levels output,module]
 *       [--rivals ddim/leading,dpm-solver++/lambda]
 *       [--model avatars-dit] [--prompts FILE] [--caches FILE] [--images 64] [--steps 50] [--converged-steps 250] [--references DIR] [--timing-images 4] [--rounds 3] [--no-timing]
 *
 * Each method is set to each FLOPs speed-up, and each sampler takes as many steps as cost the same, in every spacing that
 * it has. PSNR and SSIM compare with the uncached images of the same seeds, and PSNR with those of so many more steps
 * too, where the sampler has converged; the classes take turns, or the lines of --prompts with a model that takes prompts.
 * --caches: a JSON object of caches by name, as requests take them, measured as they are after the rest. `time_ratio` is the time of the uncached run over that of the
 * method: the median over rounds of two runs each, one after the other.
 *
 * A row is written as soon as it is measured; what fails is told and left out. Begun again with the same file, the rows
 * that it has are not measured again; references lie in a folder as PNG. The level "block" gives the numbers of "stack", because residuals add up;
 * tests/models proves it.
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  cacheMethods,
  DiffusionPipeline,
  decodePng,
  encodePng,
  FemoError,
  namedSamplers,
  psnr,
  ssim,
  timestepSpacings,
} from "femo";
import { qualityOf, settingsAtCost } from "femo/studies";
import { median } from "./median.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: "avatars-dit" },
    csv: { type: "string" },
    methods: { type: "string", default: "all" },
    speedups: { type: "string", default: "3,5,7" },
    levels: { type: "string", default: "output,module" },
    rivals: { type: "string", default: "all" },
    images: { type: "string", default: "64" },
    steps: { type: "string", default: "50" },
    "converged-steps": { type: "string", default: "250" },
    references: { type: "string", default: "quality-references" },
    "cost-images": { type: "string", default: "4" },
    "timing-images": { type: "string", default: "4" },
    rounds: { type: "string", default: "3" },
    "no-timing": { type: "boolean", default: false },
    seed: { type: "string", default: "1000" },
    guidance: { type: "string" },
    prompts: { type: "string" },
    caches: { type: "string" },
    threads: { type: "string" },
  },
});
const [images, numInferenceSteps, seed] = [values.images, values.steps, values.seed].map(Number);
const [convergedSteps, costImages, timingImages, rounds] = [
  values["converged-steps"],
  values["cost-images"],
  values["timing-images"],
  values.rounds,
].map(Number);
const speedups = values.speedups.split(",").map(Number);
const pipeline = await DiffusionPipeline.fromPretrained(values.model, {
  ...(values.threads && { threads: Number(values.threads) }),
});
const isPrompt = pipeline.subjectOption === "prompt";
const choices = isPrompt
  ? values.prompts
    ? readFileSync(values.prompts, "utf8").split("\n").filter(Boolean)
    : pipeline.examples
  : [...pipeline.classes.keys()];
/** What is drawn: classes or prompts, in turn. */
const subjects = Array.from({ length: images }, (_, i) => choices[i % choices.length]);
/** @param {typeof subjects} chosen */
const drawing = (chosen) => ({ [pipeline.subjectOption]: chosen });
const guidance = values.guidance ?? (isPrompt ? "own" : "1.5");
const guided = guidance === "own" ? {} : { [isPrompt ? "trueCfgScale" : "guidanceScale"]: Number(guidance) };
const common = { ...drawing(subjects), seed, ...guided, batchSize: 4 };
const uncached = pipeline.plannedFlops({ ...common, numInferenceSteps })?.done ?? Number.NaN;

const keys = ["model", "images", "steps", "seed", "guidance", "converged_steps", "cost", "level", "method"];
const likenesses = ["psnr", "ssim", "converged_psnr"].flatMap((name) =>
  ["mean", "median", "p10"].map((of) => `${name}_${of}`),
);
const header = [...keys, "full_steps", "flops_speedup", ...likenesses, "time_ratio", "state_bytes", "settings"].join(
  ",",
);
const known = knownRows();

/** The rows that the file has, without a last line that was cut off. */
function knownRows() {
  if (!values.csv || !existsSync(values.csv)) {
    show(header);
    return [];
  }
  const [head, ...rows] = readFileSync(values.csv, "utf8").split("\n").slice(0, -1);
  if (head !== header) throw new Error(`${values.csv} has other columns: choose another file`);
  writeFileSync(values.csv, [head, ...rows, ""].join("\n"));
  return rows;
}

/** @param {string} row */
function show(row) {
  console.log(row);
  if (values.csv) appendFileSync(values.csv, `${row}\n`);
}

const keyOf = (cost, level, method) =>
  [values.model, images, numInferenceSteps, seed, guidance, convergedSteps, cost, level, method].join(",");

/**
 * Images without a cache, each drawn once and kept.
 * @param {number} steps
 */
async function references(steps) {
  const request = { ...common, numInferenceSteps: steps, ...spacingFor(steps) };
  const key = createHash("sha256")
    .update(JSON.stringify([values.model, { ...request, [pipeline.subjectOption]: choices, seed: undefined }]))
    .digest("hex")
    .slice(0, 16);
  const folder = join(values.references, key);
  mkdirSync(folder, { recursive: true });
  const fileOf = (i) => join(folder, `${i % choices.length}-${seed + i}.png`);
  for (let first = 0; first < images; first += common.batchSize) {
    const some = subjects.slice(first, first + common.batchSize);
    if (some.every((_, i) => existsSync(fileOf(first + i)))) continue;
    const drawn = await pipeline.generate({ ...request, ...drawing(some), seed: seed + first });
    for (const [i, image] of drawn.images.entries()) {
      const file = fileOf(first + i);
      writeFileSync(`${file}.part`, encodePng(image));
      renameSync(`${file}.part`, file);
    }
  }
  return subjects.map((_, i) => decodePng(readFileSync(fileOf(i))).image);
}

/**
 * The model's own spacing, or "dit" where that does not go to so many steps.
 * @param {number} steps
 * @returns {{ timestepSpacing?: "dit" }}
 */
function spacingFor(steps) {
  return fits({ numInferenceSteps: steps }) ? {} : { timestepSpacing: "dit" };
}

/** @param {Partial<import("femo").GenerateOptions>} options */
function fits(options) {
  try {
    pipeline.plannedFlops({ ...drawing(subjects.slice(0, 1)), ...options });
    return true;
  } catch (error) {
    if (!(error instanceof FemoError) || error.code !== "E_OPTION") throw error;
    return false;
  }
}

const plain = await references(numInferenceSteps);
const converged = convergedSteps > 0 ? await references(convergedSteps) : undefined;

/**
 * Time of the uncached run over that of another, run in turn.
 * @param {Partial<import("femo").GenerateOptions>} options
 */
async function timeRatio(options) {
  /** @param {Partial<import("femo").GenerateOptions>} options */
  const timeOf = async (options) => {
    await pipeline.warmUp(options.cache ?? "none");
    const { report } = await pipeline.generate({
      ...common,
      ...drawing(subjects.slice(0, timingImages)),
      numInferenceSteps,
      outputType: "latent",
      ...options,
    });
    return report.conditioningMs + report.stepsMs;
  };
  const ratios = [];
  for (let round = 0; round < rounds; round++) {
    const first = await timeOf(round % 2 ? options : {});
    const second = await timeOf(round % 2 ? {} : options);
    ratios.push(round % 2 ? second / first : first / second);
  }
  return median(ratios);
}

/**
 * Measures a row.
 * @param {string} key
 * @param {Partial<import("femo").GenerateOptions>} options
 */
async function measure(key, options) {
  const { images: drawn, report } = await pipeline.generate({ ...common, numInferenceSteps, ...options });
  const counts = report.fullSteps.map(({ length }) => length);
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  const text = (metric, wanted, digits) => {
    if (!wanted) return ["", "", ""];
    const { mean, median, tenthPercentile } = qualityOf(drawn.map((image, i) => metric(image, wanted[i])));
    return [mean, median, tenthPercentile].map((value) => value.toFixed(digits));
  };
  const settings = {
    ...report.cache,
    sampler: report.sampler,
    timestepSpacing: report.timestepSpacing,
    numInferenceSteps: report.numInferenceSteps,
  };
  show(
    [
      key,
      least === most ? least : `${least}-${most}`,
      (uncached / report.flops.done).toFixed(3),
      ...text(psnr, plain, 2),
      ...text(ssim, plain, 4),
      ...text(psnr, converged, 2),
      values["no-timing"] ? "" : (await timeRatio(options)).toFixed(3),
      report.stateBytes,
      `"${JSON.stringify(settings).replaceAll('"', '""')}"`,
    ].join(","),
  );
}

/**
 * @param {string} key
 * @param {() => Promise<Partial<import("femo").GenerateOptions>>} options
 */
async function measureOnce(key, options) {
  if (known.some((row) => row.startsWith(`${key},`))) return;
  try {
    await measure(key, await options());
  } catch (error) {
    if (!(error instanceof FemoError)) throw error;
    console.error(`${key}: ${error.message}`); // such as a method that does not fit the model; the others go on
  }
}

await measureOnce(keyOf(1, "-", "none"), async () => ({}));
// Full steps that were placed by measurement, in the method that they were placed for.
for (const { fullSteps } of pipeline.schedules.filter((placed) => placed.numInferenceSteps === numInferenceSteps)) {
  for (const steps of fullSteps) {
    const cache = /** @type {import("femo").CacheOptions} */ ({
      method: "hindsight",
      fullSteps: steps,
      measure: false,
    });
    await measureOnce(keyOf("placed", "x0", `hindsight ${steps.length}`), async () => ({ cache }));
  }
}
const methods = values.methods === "all" ? cacheMethods : values.methods.split(",");
const caching = /** @type {Exclude<import("femo").CacheMethod, "none">[]} */ (
  methods.filter((name) => name !== "none")
);
for (const speedup of speedups) {
  for (const method of caching) {
    const levels = "granularity" in (pipeline.presets[method] ?? {}) ? values.levels.split(",") : ["-"];
    for (const level of levels) {
      await measureOnce(keyOf(speedup, level, method), async () => {
        const { settings } = await settingsAtCost(
          pipeline,
          /** @type {import("femo").CacheOptions} */ ({ method, ...(level !== "-" && { granularity: level }) }),
          { ...common, ...drawing(subjects.slice(0, costImages)), numInferenceSteps, speedup },
        );
        return { cache: "measure" in settings ? { ...settings, measure: false } : settings };
      });
    }
  }
  const steps = Math.max(1, Math.round(numInferenceSteps / speedup));
  for (const sampler of namedSamplers) {
    for (const timestepSpacing of timestepSpacings) {
      const options = { sampler, timestepSpacing, numInferenceSteps: steps };
      const isRival = values.rivals === "all" || values.rivals.split(",").includes(`${sampler}/${timestepSpacing}`);
      if (isRival && fits(options)) await measureOnce(keyOf(speedup, timestepSpacing, sampler), async () => options);
    }
  }
}
/** @type {Record<string, import("femo").CacheOptions>} */
const caches = values.caches ? JSON.parse(readFileSync(values.caches, "utf8")) : {};
for (const [name, cache] of Object.entries(caches)) {
  if (/[",\n]/.test(name)) throw new Error(`--caches: ${name}: expected a name without commas and quotes`);
  const level = typeof cache === "object" && "granularity" in cache ? String(cache.granularity) : "-";
  await measureOnce(keyOf("-", level, name), async () => ({ cache }));
}
await pipeline.close();
