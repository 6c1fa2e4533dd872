import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { type CacheOptions, DiffusionPipeline } from "../../src/index.js";
import { relativeError } from "../runtime/helpers.js";
import { type Caching, caching, methodContract, type Needed, withFields } from "./contract.js";
import { refusedByUNets } from "./unet-methods.js";

const path = fileURLToPath(new URL("../goldens/sd-pipeline/sd2", import.meta.url));
const pipeline = await DiffusionPipeline.fromPretrained(path, { threads: 1 });
afterAll(() => pipeline.close());

const methods = caching.filter((method) => !refusedByUNets.includes(method));
const subjects = ["a fox", "two lemons", "a frog in the snow"];
const request = { numInferenceSteps: 8, height: 32, width: 32, guidanceScale: 1.5 };
/** Of which a forecast saves much even of a tiny network. */
const granularity = "deep.0";
const ratios = { ratios: [1, 1.02, 0.98, 0.97], retentionRatio: 0.1 };
const needed: Needed = Object.fromEntries(
  methods.map((method) => {
    if (method === "deepCache") return [method, { cacheBranchId: 0 }];
    return [method, { granularity, ...(method === "magCache" && ratios) }];
  }),
);
methodContract({ pipeline, methods, needed, subjects, request });

const fewer = {
  ...request,
  numInferenceSteps: 5,
  prompt: subjects.slice(0, 2),
  seed: 3,
  outputType: "latent" as const,
};
const draw = (cache: CacheOptions) => pipeline.generate({ ...fewer, cache });
/** Those that go by an interval, or by a number of steps in a row. */
const every = (method: Caching, interval: number, fields: object = {}): CacheOptions => {
  const { granularity: _, ...own } = { granularity, ...needed[method] };
  const rate = method === "magCache" ? { threshold: interval > 1 ? 1 : 0, maxSkipSteps: interval - 1 } : { interval };
  const enhanced = "firstEnhance" in pipeline.presets[method] && { firstEnhance: 2 };
  return withFields({}, method, { ...own, ...rate, ...enhanced, ...fields });
};

test.each(pipeline.levels)(
  "at the level %s full steps change nothing, and every method's forecasts are near",
  async (level) => {
    const { latents: wanted } = await draw("none");
    const at = /^deep\.(\d+)$/.exec(level);
    for (const method of methods) {
      if (method === "deepCache" && !at) continue;
      const fields = method === "deepCache" ? { cacheBranchId: Number(at?.[1]) } : { granularity: level };
      const whole = await draw(every(method, 1, fields));
      expect(relativeError(whole.latents, wanted), method).toBeLessThan(1e-5);
      const { latents, report } = await draw(every(method, 2, fields));
      expect(report.fullSteps[0]?.length, method).toBeLessThan(5);
      expect(latents.every(Number.isFinite), method).toBe(true);
      const error = relativeError(latents, wanted);
      expect(error, method).toBeGreaterThan(0);
      expect(error, method).toBeLessThan(1);
    }
  },
);
