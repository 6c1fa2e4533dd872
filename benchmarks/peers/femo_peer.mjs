/**
 * Draws one image with femo in a process of its own, and prints what it took as one line of JSON.
 *
 *     node benchmarks/peers/femo_peer.mjs JSON    (compare.py writes the JSON)
 */
import { readFileSync, writeFileSync } from "node:fs";
import { DiffusionPipeline } from "femo";

const job = JSON.parse(process.argv[2]);

/** This process and its engine's. */
const processes = () => [
  "self",
  ...(readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").match(/\d+/g) ?? []),
];
/** Peak resident memory since the start or the last reset, MB. */
const peakMB = () =>
  processes()
    .map((pid) => Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1000)
    .reduce((a, b) => a + b);
const resetPeak = () => {
  for (const pid of processes()) writeFileSync(`/proc/${pid}/clear_refs`, "5");
};

/**
 * @param {DiffusionPipeline} pipeline
 * @param {number} numInferenceSteps
 */
async function draw(pipeline, numInferenceSteps) {
  const ends = [];
  const start = performance.now();
  const { images, latents, report } = await pipeline.generate({
    classLabels: job.label,
    numInferenceSteps,
    guidanceScale: job.guidance,
    seed: job.seed,
    cache: job.cache,
    onStep: () => ends.push((performance.now() - start) / 1000),
  });
  const seconds = (performance.now() - start) / 1000;
  return { seconds, ends, latents, image: images[0].data, fullSteps: report.fullSteps[0] };
}

const start = performance.now();
const pipeline = await DiffusionPipeline.fromPretrained(job.model, { threads: job.threads });
const loadSeconds = (performance.now() - start) / 1000;
const warmUp = await draw(pipeline, job.warmUpSteps);
const loadingPeakMB = peakMB();
resetPeak();
const { latents, image, ...times } = await draw(pipeline, job.steps);
const drawingPeakMB = peakMB();
await pipeline.close();

writeFileSync(`${job.out}.latents`, latents);
writeFileSync(`${job.out}.rgb`, image);
const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
const versions = { femo: version, node: process.versions.node };
const result = { ...times, loadSeconds, warmUpSeconds: warmUp.seconds, loadingPeakMB, drawingPeakMB, versions };
console.log(JSON.stringify(result));
