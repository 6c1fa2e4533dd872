import { describe, expect, test } from "vitest";
import { checkCuts } from "../../src/denoising/feature-state.js";
import { Backbone, Conditioning, denoise, guidanceRows } from "../../src/denoising/index.js";
import type { CacheMethod, CacheOptions } from "../../src/index.js";
import { cacheLevels, cacheSettings, defaultPresets, methodOf } from "../../src/methods/index.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { createSampler, ditScheduler } from "../../src/samplers/index.js";
import { openUNet, unetNames } from "../models/unets.js";
import { engineForTests, noise, relativeError } from "../runtime/helpers.js";
import { watchedEngine } from "../runtime/watched-engine.js";
import { femoError } from "../weights/helpers.js";
import { type Caching, caching } from "./contract.js";
import { refusedByUNets } from "./unet-methods.js";

const engine = engineForTests();
const kept = caching.filter((method) => !refusedByUNets.includes(method));
const withFields = (method: CacheMethod, fields: object = {}) =>
  ({ method, ...(method === "magCache" && { ratios: [1, 1, 1] }), ...fields }) as CacheOptions;
/** The cuts of a method that has no level of its own to choose: each of its own. */
function choices(method: Caching): object[] {
  if (method === "firstBlock" || method === "dbCache") return [{}];
  const deep = model.levels.filter((level) => level.startsWith("deep."));
  return method === "deepCache"
    ? deep.map((_, cacheBranchId) => ({ cacheBranchId }))
    : cacheLevels(model).map((granularity) => ({ granularity }));
}

const tiny = await openUNet("sd2");
const { model, checkpoint, tensors, sizes } = tiny;
const built = (cache: CacheOptions) => methodOf(cacheSettings(cache, defaultPresets, cacheLevels(model)), model);

test.each(refusedByUNets)("%s is refused as an option, and why is said", async (method) => {
  expect(await femoError("E_OPTION", () => built(withFields(method)))).toMatch(
    /^cache: .*expected .* found none, as of a U-Net/,
  );
});

test.each(kept)("the cuts of %s fit together at every level", (method) => {
  const backbone = new Backbone(model, checkpoint, new Sessions(engine, 0));
  for (const fields of choices(method)) {
    expect(() => checkCuts(backbone, built(withFields(method, fields)))).not.toThrow();
  }
});

test("levels are named from the finest to the coarsest, a cut for each skip among them", async () => {
  const opened = await Promise.all(unetNames.map(openUNet));
  for (const { model } of opened) {
    const skips = model.levels.filter((level) => level.startsWith("deep."));
    expect(skips).toEqual(skips.map((_, i) => `deep.${skips.length - 1 - i}`));
    expect(model.levels).toEqual(["module", "transformer", "block", ...skips, "stack", "output"]);
  }
});

describe("two images under guidance", () => {
  const { engine: watched, held } = watchedEngine(engine);
  const backbone = new Backbone(model, checkpoint, new Sessions(watched, Number.POSITIVE_INFINITY));
  const sampler = createSampler(ditScheduler, { numInferenceSteps: 5 });

  async function draw(cache: CacheOptions, images: readonly number[] = [0, 1]) {
    const { encoder_hidden_states: states } = tensors;
    const feeds = { encoder_hidden_states: states as NonNullable<typeof states> };
    const conditioning = await Conditioning.compute(backbone, "run", sampler.timesteps, { count: 2, feeds }, sizes);
    const loop = denoise({
      ...{ backbone, sampler, conditioning, prefix: "run", guidanceChannels: "all" as const },
      method: built(cache),
      images: images.map((index) => ({
        index,
        rows: guidanceRows(2, 0, 1),
        sizes,
        latent: noise(backbone.sampleDims(sizes), 40 + index).data as Float32Array,
      })),
    });
    for (;;) {
      const { done, value } = await loop.next();
      if (!done) continue;
      await conditioning.free();
      expect([...held]).toEqual([]);
      return value.latents.map((latent) => Array.from(latent));
    }
  }

  test("DeepCache is the last features again at its level, and takes every second step in full, or those around one", async () => {
    const [deep, fora] = [
      await draw(withFields("deepCache", { interval: 2, cacheBranchId: 1 })),
      await draw(withFields("fora", { interval: 2, firstEnhance: 1, granularity: "deep.1", fullSteps: [0, 2, 4] })),
    ];
    expect(deep).toEqual(fora);
    const around = { interval: 2, cacheBranchId: 1, uniform: false, center: 2, power: 1 };
    const crowded = await draw(withFields("deepCache", around));
    expect(crowded).toEqual(await draw(withFields("fora", { granularity: "deep.1", fullSteps: [0, 2, 3] })));
    expect(await draw(withFields("deepCache", { interval: 1 }))).toEqual(await draw("none"));
  });

  test("DeepCache names the cuts that there are, and the kind of model that it is for", async () => {
    expect(await femoError("E_OPTION", () => built(withFields("deepCache", { cacheBranchId: 99 })))).toMatch(
      /cacheBranchId: expected 0 to \d+, found 99/,
    );
    const facts = { levels: ["output"], chains: {}, marks: [] };
    const settings = cacheSettings("deepCache", defaultPresets, ["output"]);
    expect(await femoError("E_OPTION", () => methodOf(settings, facts))).toContain("expected a U-Net");
  });

  test.each(["deep.1", "block"])(
    "at %s: at an interval of 1 it is no cache, at 2 it is near, alone or together",
    async (granularity) => {
      const plain = await draw("none");
      const cache = (interval: number) => withFields("femo", { interval, granularity });
      const [all, half] = [await draw(cache(1)), await draw(cache(2))];
      const [alone] = await draw(cache(2), [1]);
      for (const [i, latent] of plain.entries()) {
        expect(relativeError(all[i] as number[], latent)).toBeLessThan(1e-5);
        expect(relativeError(half[i] as number[], latent)).toBeGreaterThan(1e-5);
      }
      expect(relativeError(alone as number[], half[1] as number[])).toBeLessThan(1e-5);
    },
  );
});
