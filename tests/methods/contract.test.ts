import { describe, expect, test } from "vitest";
import { Backbone, Conditioning, denoise, guidanceRows } from "../../src/denoising/index.js";
import { cacheLevels, cacheSettings, defaultPresets, methodOf } from "../../src/methods/index.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { createSampler, ditScheduler } from "../../src/samplers/index.js";
import { goldenFolder, openModel } from "../models/tiny.js";
import { engineForTests, integers, noise } from "../runtime/helpers.js";
import { watchedEngine } from "../runtime/watched-engine.js";
import { openTinyPipeline } from "../tiny-pipeline.js";
import { caching, methodContract, type Needed, withFields } from "./contract.js";

/** On a model of two blocks. */
const needed: Needed = {
  magCache: { ratios: [1, 1.02, 0.98, 0.97], retentionRatio: 0.1 },
  dbCache: { maxWarmupSteps: 1 },
  chipmunk: { denseLayers: 0, mlpGroup: 8, attentionGroup: 8 },
};
const numInferenceSteps = 8;
/** All but DeepCache, which is for U-Nets: unet-contract.test.ts. */
const methods = caching.filter((method) => method !== "deepCache");

const { pipeline } = await openTinyPipeline();
methodContract({ pipeline, methods, needed, subjects: ["oak", "ibis", "micah"], request: { numInferenceSteps } });

describe("nothing stays with the engine, however a run ends", () => {
  const engine = engineForTests();
  test.each(methods)("%s", async (method) => {
    const { engine: watched, held } = watchedEngine(engine);
    const { model, checkpoint } = await openModel(watched, `${goldenFolder}/tiny-a`);
    const backbone = new Backbone(model, checkpoint, new Sessions(watched, Number.POSITIVE_INFINITY));
    const sampler = createSampler(ditScheduler, { numInferenceSteps });
    const feeds = { class_label: integers([3], [0, 3, 7]) };
    const settings = cacheSettings(withFields(needed, method), defaultPresets, cacheLevels(model));
    for (const stopAfter of [1, 3, Number.POSITIVE_INFINITY]) {
      const conditioning = await Conditioning.compute(backbone, "run", sampler.timesteps, { count: 3, feeds });
      const steps = denoise({
        ...{ backbone, sampler, conditioning, prefix: "run", guidanceChannels: "all" as const },
        method: methodOf(settings, model),
        images: [0, 1].map((index) => ({
          index,
          rows: guidanceRows(2, index, 2),
          sizes: {},
          latent: noise(backbone.sampleDims({}), 40 + index).data as Float32Array,
        })),
      });
      let seen = 0;
      for await (const _ of steps) if (++seen === stopAfter) break;
      await conditioning.free();
      expect([...held]).toEqual([]);
    }
  });
});
