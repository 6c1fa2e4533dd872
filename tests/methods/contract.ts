import { describe, expect, test } from "vitest";
import type * as z from "zod/mini";
import { isFull } from "../../src/denoising/index.js";
import {
  type CacheMethod,
  type CacheOptions,
  cacheMethods,
  type DiffusionPipeline,
  type GenerateOptions,
} from "../../src/index.js";
import { cacheLevels, cacheSettings, defaultPresets, knobOf, type Method, methodOf } from "../../src/methods/index.js";
import { methodTable } from "../../src/methods/table.js";
import { settingsAtCost } from "../../src/studies/index.js";
import { relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

/** All that skip part of the work of a step. */
export type Caching = Exclude<CacheMethod, "none" | "calibrated">;
export const caching = cacheMethods.filter((method): method is Caching => method !== "none" && method !== "calibrated");

/** Fields that methods need on a model, or that no model has of itself. */
export type Needed = { readonly [M in CacheMethod]?: object };
export const withFields = (needed: Needed, method: Caching, fields: object = {}): Exclude<CacheOptions, string> =>
  ({ method, ...needed[method], ...fields }) as Exclude<CacheOptions, string>;

/** Keep features and nothing else. */
const plain: readonly Caching[] = [
  ...["fora", "taylorSeer", "newton", "femo", "adaptedFemo", "hindsight", "hiCache", "foca"],
  ...["magCache", "deepCache"],
] as const;

/** What every caching method does on a model that it is for. */
export interface Contract {
  readonly pipeline: DiffusionPipeline;
  readonly methods: readonly Caching[];
  readonly needed: Needed;
  /** Three of what the model draws. */
  readonly subjects: readonly string[];
  /** What else requests say; the number of steps is one of them. */
  readonly request: Partial<GenerateOptions> & { readonly numInferenceSteps: number };
}

export function methodContract({ pipeline, methods, needed, subjects, request: chosen }: Contract): void {
  const all = { [pipeline.subjectOption]: subjects, ...chosen };
  const { numInferenceSteps } = chosen;
  const withNeeded = (method: Caching, fields: object = {}) => withFields(needed, method, fields);
  const draw = (cache: CacheOptions, options: Partial<GenerateOptions> = {}) =>
    pipeline.generate({ ...all, seed: 3, outputType: "latent", ...options, cache });

  /** The method at settings that skip some of the work. */
  async function saving(method: Caching, speedup = 1.6): Promise<CacheOptions> {
    const options = { ...all, [pipeline.subjectOption]: subjects.slice(0, 2), seed: 3, speedup };
    return (await settingsAtCost(pipeline, withNeeded(method), options)).settings;
  }

  describe.each(methods)("%s", (method) => {
    test("with its knob at the start computes every step, and draws what no cache does", async () => {
      const knob = knobOf(method);
      expect(knob).toBeDefined();
      const cache = withNeeded(method, { [knob?.field ?? ""]: knob?.from });
      const [found, wanted] = [await draw(cache), await draw("none")];
      expect(relativeError(found.latents, wanted.latents)).toBeLessThan(1e-5);
      expect(found.report.fullSteps).toEqual(wanted.report.fullSteps);
      expect(found.report.flops.speedup).toBeLessThan(1.01);
    });

    test("saves work, and does the same again, whatever runs beside it", async () => {
      const cache = await saving(method);
      const [first, wanted] = [await draw(cache), await draw("none")];
      expect(first.report.flops.speedup).toBeGreaterThan(1.2);
      expect(relativeError(first.latents, wanted.latents)).toBeGreaterThan(0);
      const [second, , third] = await Promise.all([draw(cache), draw("fora", { seed: 9 }), draw(cache)]);
      expect(second.latents).toEqual(first.latents);
      expect(third.latents).toEqual(first.latents);
      expect(second.report.fullSteps).toEqual(first.report.fullSteps);
    });

    test("gives each image of a batch what it gets alone", async () => {
      const cache = await saving(method);
      const together = await draw(cache);
      const size = together.latents.length / subjects.length;
      for (const [i, subject] of subjects.entries()) {
        const alone = await draw(cache, { [pipeline.subjectOption]: subject, seed: 3 + i });
        expect(alone.report.fullSteps[0]).toEqual(together.report.fullSteps[i]);
        const own = together.latents.subarray(i * size, (i + 1) * size);
        expect(relativeError(own, alone.latents)).toBeLessThan(1e-4);
      }
    });

    test("counts beforehand what it will have done, if it knows its steps", async () => {
      const request = { ...all, cache: await saving(method) };
      const planned = pipeline.plannedFlops(request);
      if (planned) expect(planned).toEqual((await draw(request.cache)).report.flops);
      else expect(methodOf(pipeline.cacheSettings(request.cache), pipeline).policy.looks).not.toEqual([]);
    });

    test("with the guard computes what its forecasts miss", async () => {
      // At one of them there are several full steps and others between.
      const caches = [await saving(method, 1.25), await saving(method)].map((cache) => cache as object);
      const bounded = async (errorBound: number) => {
        const drawn = [];
        for (const cache of caches) drawn.push((await draw({ ...cache, errorBound } as CacheOptions)).report);
        return {
          guarded: drawn.flatMap(({ guardedSteps }) => guardedSteps).flat().length,
          full: drawn.flatMap(({ fullSteps }) => fullSteps).flat().length,
        };
      };
      const [strict, free] = [await bounded(1e-9), await bounded(1e9)];
      expect(strict.guarded).toBeGreaterThan(0);
      expect(strict.full).toBeGreaterThan(free.full);
      expect(free.guarded).toBe(0);
    });

    test("keeps features in half precision, if told to, and draws nearly the same", async () => {
      // What hindsight forecasts by itself, x0, is kept elsewhere.
      const level = method === "hindsight" && { granularity: "output" };
      const cache = { ...((await saving(method)) as object), ...level };
      const [whole, half] = [
        await draw(cache as CacheOptions),
        await draw({ ...cache, stateDtype: "float16" } as CacheOptions),
      ];
      expect(half.report.fullSteps).toEqual(whole.report.fullSteps);
      const error = relativeError(half.latents, whole.latents);
      expect(error).toBeLessThan(2e-3);
      const [bytes, before] = [half.report.stateBytes, whole.report.stateBytes];
      // What sparse steps correct are no features.
      if (method === "chipmunk") return expect([bytes, error]).toEqual([before, 0]);
      expect(error).toBeGreaterThan(0);
      // Beside features some methods leave streams and scores, in float32.
      expect(bytes).toBeLessThan(before);
      if (plain.includes(method)) expect(bytes).toBe(before / 2);
    });

    test("names a field that is wrong, and one that it does not have", async () => {
      const { schema } = methodTable.find(({ name }) => name === method) as (typeof methodTable)[number];
      const { method: _, ...shape } = (schema as z.ZodMiniObject).shape;
      for (const field of Object.keys(shape)) {
        const cache = withNeeded(method, { [field]: { no: "value" } });
        expect(await femoError("E_OPTION", () => draw(cache))).toMatch(new RegExp(`^cache: .*\\b${field}\\b`));
      }
      expect(await femoError("E_OPTION", () => draw(withNeeded(method, { attic: 1 })))).toContain("attic");
    });

    test("computes a step that is due, and says that it is full", () => {
      const levels = cacheLevels(pipeline);
      const settings = cacheSettings(withNeeded(method), defaultPresets, levels);
      const { policy, cuts, ...rest } = methodOf(settings, pipeline);
      const all: Method = { policy, cuts, ...rest };
      let memory = policy.start(0);
      for (let step = 0; step < numInferenceSteps; step++) {
        const seen = policy.looks.map(() => (step === 0 ? undefined : 0));
        const due = policy.decide(memory, { step, numSteps: numInferenceSteps, due: true }, seen);
        expect(isFull(cuts[due.kind] ?? {}, all)).toBe(true);
        memory = policy.decide(memory, { step, numSteps: numInferenceSteps, due: false }, seen).memory;
      }
    });
  });
}
