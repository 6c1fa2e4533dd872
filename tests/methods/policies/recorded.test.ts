import { expect, test } from "vitest";
import { type CacheOptions, cacheLevels, cacheSettings, defaultPresets, methodOf } from "../../../src/methods/index.js";
import { type Cut, graphNames } from "../../../src/tracing/index.js";
import { tinyRuns } from "../../denoising/tiny-runs.js";

const { backbone, image, start, run } = tinyRuns();
const CHAIN = "transformer_blocks";
const numSteps = 12;
const images = [0, 1, 2];

/** Where every image stood before every step of a run, and which steps were full. */
async function recorded(cache: CacheOptions) {
  const { model } = backbone();
  const method = methodOf(cacheSettings(cache, defaultPresets, cacheLevels(model)), model);
  const { steps } = await run(method, images, numSteps);
  return images.map((index) => {
    const own = steps.filter((step) => step.images.includes(index));
    const size = image(index).latent.length;
    const after = own.map(({ latents, images }) => {
      const at = images.indexOf(index);
      return latents.slice(at * size, (at + 1) * size);
    });
    return {
      index,
      before: [image(index).latent, ...after.slice(0, -1)],
      full: own.map(({ full }) => (full ? "F" : "c")).join(""),
    };
  });
}

/** An output of a graph for where an image stood, its rows one after the other. */
async function given(cut: Cut, output: string, index: number, latent: Float32Array, step: number): Promise<number[]> {
  const { conditioning } = await start(numSteps);
  const { rows } = image(index);
  const conditions = rows.map(({ condition }) => condition);
  const data = Float32Array.from(rows.flatMap(() => [...latent]));
  const dims = [rows.length, ...backbone().sampleDims({})];
  const feeds = { ...conditioning.feeds(cut, step, conditions, {}), sample: { dtype: "float32", dims, data } as const };
  const { outputs } = await backbone().run(cut, { feeds, fetch: [output] });
  return Array.from(outputs[output]?.data ?? [], Number);
}

/** |now - then| / |then|, sums of magnitudes in doubles. */
function change(now: readonly number[], then: readonly number[]): number {
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + Math.abs(value), 0);
  return sum(now.map((value, i) => value - (then[i] as number))) / sum(then);
}

test.each([0.4, 0.9, 2])(
  "TeaCache computes the steps that the recorded inputs of the first block say: %f",
  async (threshold) => {
    const cut: Cut = { to: { chain: CHAIN, block: 0 }, give: ["modulated"] };
    const found = await recorded({ method: "teaCache", threshold, coefficients: [0.5, 1, 0.01] });
    for (const { index, before, full } of found) {
      let wanted = "";
      let sum = 0;
      let last: number[] = [];
      for (const [step, latent] of before.entries()) {
        const now = await given(cut, graphNames.mark("modulated"), index, latent, step);
        if (step > 0) {
          const r = change(now, last);
          sum += 0.5 * r ** 2 + r + 0.01;
        }
        const computes = step === 0 || step === numSteps - 1 || sum >= threshold;
        if (computes) sum = 0;
        wanted += computes ? "F" : "c";
        last = now;
      }
      expect(full).toBe(wanted);
    }
    expect(found.some(({ full }) => full.includes("c"))).toBe(true);
  },
);

const front: Cut = { to: { chain: CHAIN, block: 1 }, capture: { chain: CHAIN, blocks: [0, 1] } };
const residual = graphNames.feature(`${CHAIN}.0`);

test.each([0.5, 0.7, 0.95])(
  "DBCache and first-block cache, those that the recorded changes of the front say: %f",
  async (threshold) => {
    const maxContinuousCachedSteps = 2;
    const caches: CacheOptions[] = [
      { method: "firstBlock", threshold, warmupSteps: 0, order: 0 },
      { method: "dbCache", threshold, maxWarmupSteps: 3, warmupInterval: 2, maxContinuousCachedSteps },
    ];
    for (const cache of caches) {
      const db = (cache as { method: string }).method === "dbCache";
      const found = await recorded(cache);
      for (const { index, before, full } of found) {
        let wanted = "";
        let inRow = 0;
        let lastFull: number[] | undefined;
        for (const [step, latent] of before.entries()) {
          const now = await given(front, residual, index, latent, step);
          const warmsUp = db && step < 3 && step % 2 === 0;
          const stops = db && inRow >= maxContinuousCachedSteps;
          const caches = lastFull !== undefined && !warmsUp && !stops && change(now, lastFull) < threshold;
          inRow = caches ? inRow + 1 : 0;
          if (!caches) lastFull = now;
          wanted += caches ? "c" : "F";
        }
        expect(full).toBe(wanted);
      }
      expect(found.some(({ full }) => full.includes("c"))).toBe(true);
    }
  },
);
