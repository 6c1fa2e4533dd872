import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { type CacheOptions, DiffusionPipeline } from "../../src/index.js";
import { knobOf } from "../../src/methods/index.js";
import { relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { type Caching, caching, methodContract, type Needed, withFields } from "./contract.js";
import { refusedByUNets } from "./unet-methods.js";

const open = (name: string) =>
  DiffusionPipeline.fromPretrained(fileURLToPath(new URL(`../goldens/sd-pipeline/${name}`, import.meta.url)), {
    threads: 1,
  });
const pipeline = await open("sd2");
const deeper = await open("sdxl");
afterAll(() => Promise.all([pipeline.close(), deeper.close()]));

const methods = caching.filter((method) => !refusedByUNets.includes(method));
const subjects = ["a fox", "two lemons", "a frog in the snow"];
const request = { numInferenceSteps: 8, height: 32, width: 32, guidanceScale: 1.5 };
/** Of which a forecast saves much even of a tiny network. */
const granularity = "deep.0";
const own: Needed = {
  magCache: { ratios: [1, 1.02, 0.98, 0.97], retentionRatio: 0.1, granularity },
  deepCache: { cacheBranchId: 0 },
  firstBlock: {},
  dbCache: { maxWarmupSteps: 1 },
};
const needed: Needed = Object.fromEntries(methods.map((method) => [method, own[method] ?? { granularity }]));
/** They keep what lies behind the first residual block, which is little of so small a network as the first of the two. */
const behindFirst: readonly Caching[] = ["firstBlock", "dbCache"];
const others = methods.filter((method) => !behindFirst.includes(method));
methodContract({ pipeline, methods: others, needed, subjects, request });
methodContract({ pipeline: deeper, methods: behindFirst, needed, subjects, request });

test("of a U-Net only the first block is in front", async () => {
  for (const fields of [{ frontBlocks: 2 }, { backBlocks: 1 }]) {
    const cache = { method: "dbCache" as const, ...fields };
    const message = await femoError("E_OPTION", () => pipeline.generate({ prompt: "a fox", cache }));
    expect(message).toContain("expected 1 and 0 of a U-Net");
  }
});

const fewer = {
  ...request,
  numInferenceSteps: 5,
  prompt: subjects.slice(0, 2),
  seed: 3,
  outputType: "latent" as const,
};
const draw = (cache: CacheOptions) => pipeline.generate({ ...fewer, cache });
/** At a knob at which all steps are full, or all that may be are not. */
function knobbed(method: Caching, saves: boolean, fields: object): CacheOptions {
  const knob = knobOf(method);
  const value = knob?.field === "interval" ? (saves ? 2 : 1) : saves ? knob?.to : 0;
  return withFields(needed, method, { [knob?.field ?? ""]: value, ...fields });
}
/** The method's field for a level; undefined if it is not kept there. */
function placed(method: Caching, level: string): object | undefined {
  if (behindFirst.includes(method)) return level === "deep.1" ? {} : undefined;
  if (method !== "deepCache") return { granularity: level };
  const [, cacheBranchId] = /^deep\.(\d+)$/.exec(level) ?? [];
  return cacheBranchId === undefined ? undefined : { cacheBranchId: Number(cacheBranchId) };
}

test.each(pipeline.levels)(
  "at the level %s full steps change nothing, and every method's forecasts are near",
  async (level) => {
    const { latents: wanted } = await draw("none");
    for (const method of methods) {
      const fields = placed(method, level);
      if (!fields) continue;
      const whole = await draw(knobbed(method, false, fields));
      expect(relativeError(whole.latents, wanted), method).toBeLessThan(1e-5);
      const { latents, report } = await draw(knobbed(method, true, fields));
      expect(report.fullSteps[0]?.length, method).toBeLessThan(5);
      expect(latents.every(Number.isFinite), method).toBe(true);
      const error = relativeError(latents, wanted);
      expect(error, method).toBeGreaterThan(0);
      expect(error, method).toBeLessThan(1);
    }
  },
);
