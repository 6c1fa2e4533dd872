import { beforeAll, describe, expect, test } from "vitest";
import type { CacheMethod, CacheOptions, GenerateOptions, GenerationResult } from "../../src/pipelines/index.js";
import { noise, relativeError } from "../runtime/helpers.js";
import { openTinyPipeline, tiny } from "../tiny-pipeline.js";

const values = 3 * tiny.size ** 2; // of an image

const { pipeline } = await openTinyPipeline();

/** A request with the last latents, which show what rounding to 8 bits would hide. */
async function draw(options: Partial<GenerateOptions>): Promise<GenerationResult & { result: GenerationResult }> {
  let latents = new Float32Array();
  const result = await pipeline.generate({
    classLabels: "oak",
    numInferenceSteps: 6,
    seed: 3,
    ...options,
    onStep(progress) {
      latents = Float32Array.from(progress.latents);
      options.onStep?.(progress);
    },
  });
  return { ...result, result, latents };
}
const pixels = ({ images }: GenerationResult): number[] => images.flatMap(({ data }) => Array.from(data));
/** Those that forecast features by a schedule; what holds of every method is in tests/methods/contract.test.ts. */
const caching = ["fora", "taylorSeer", "newton", "femo", "adaptedFemo", "hiCache", "foca"] as const;
const momentum = (method: CacheMethod): boolean => method === "femo" || method === "adaptedFemo";

describe("with every step computed a method changes nothing, to the bit", () => {
  let plain: Awaited<ReturnType<typeof draw>>;
  beforeAll(async () => {
    plain = await draw({ numInferenceSteps: 3 });
  });
  test.each([
    ["fora", "module"],
    ["taylorSeer", "block"],
    ["newton", "stack"],
    ["femo", "output"],
    ["femo", "module"],
    ["adaptedFemo", "block"],
    ["adaptedFemo", "stack"],
    ["taylorSeer", "output"],
  ] as const)("%s at '%s'", async (method, granularity) => {
    const { report, latents } = await draw({ numInferenceSteps: 3, cache: { method, granularity, interval: 1 } });
    expect(report.fullSteps).toEqual([[0, 1, 2]]);
    expect(latents).toEqual(plain.latents);
  });
});

describe("requests", () => {
  const cache: CacheOptions = { method: "adaptedFemo", interval: 3 };

  test("the same one gives the same bytes, also while another runs", async () => {
    const first = await draw({ cache });
    const [second, , third] = await Promise.all([draw({ cache }), draw({ cache: "fora", seed: 9 }), draw({ cache })]);
    expect(second.latents).toEqual(first.latents);
    expect(third.latents).toEqual(first.latents);
    expect(pixels(second)).toEqual(pixels(first));
  });

  test("overlapping ones that need more graphs than stay loaded do not disturb each other", async () => {
    const caches = ["module", "block", "stack", "output"].map(
      (granularity): CacheOptions => ({ method: "femo", interval: 2, granularity }),
    );
    const alone: Float32Array[] = [];
    for (const cache of caches) alone.push((await draw({ cache, numInferenceSteps: 3 })).latents);
    // All settle before the test ends: a failure must not leave runs behind for `close` to interrupt.
    const together = await Promise.allSettled(
      [...caches, ...caches].map((cache) => draw({ cache, numInferenceSteps: 3 })),
    );
    together.forEach((result, i) => {
      expect(result).toMatchObject({ status: "fulfilled" });
      const { latents } = (result as PromiseFulfilledResult<Awaited<ReturnType<typeof draw>>>).value;
      expect(latents).toEqual(alone[i % caches.length]);
    });
  });

  test.each<CacheOptions>(["none", cache])("image i is drawn again alone under its seed: %j", async (method) => {
    const together = await draw({ classLabels: ["ibis", 1, "micah"], cache: method, batchSize: 2 });
    expect(together.report.batches.map(({ images }) => images)).toEqual([[0, 1], [2]]);
    expect(together.images.map(({ seed }) => seed)).toEqual([3, 4, 5]);
    expect(together.images.map(({ classId }) => classId)).toEqual([4, 1, 3]);
    for (const { className = "", seed, data } of together.images) {
      const alone = await draw({ classLabels: className, seed: seed as number, cache: method });
      // The size of a batch may change the order of sums.
      const off = Math.max(...pixels(alone).map((value, i) => Math.abs(value - (data[i] as number))));
      expect(off).toBeLessThanOrEqual(1);
    }
  });

  test("beta of a list belongs to the image, for both of its guidance rows", async () => {
    const two = await draw({
      classLabels: ["oak", "oak"],
      cache: { method: "femo", interval: 3, beta: [0.3, -0.3, 0.9], order: 1 },
    });
    expect(two.report.batches[0]?.steps[1]?.beta).toEqual({ mean: 0, min: -0.3, max: 0.3 });
    for (const [i, beta] of [0.3, -0.3].entries()) {
      const alone = await draw({ seed: 3 + i, cache: { method: "femo", interval: 3, beta, order: 1 } });
      const off = pixels(alone).map((value, j) => Math.abs(value - (two.images[i]?.data[j] as number)));
      expect(Math.max(...off)).toBeLessThanOrEqual(1);
    }
  });

  test("guidance 1 runs one row an image and equals guidance at a scale of one", async () => {
    const off = await draw({ guidanceScale: 1 });
    const barely = await draw({ guidanceScale: 1 + 1e-9 });
    expect(relativeError(off.latents, barely.latents)).toBeLessThan(1e-4);
    const [one, two] = [off.report.batches[0]?.steps[0]?.flops ?? 0, barely.report.batches[0]?.steps[0]?.flops ?? 0];
    expect(two).toBe(2 * one);
  });

  test("guidance of some channels leaves the others conditional", async () => {
    const at = (guidanceChannels: "all" | number, guidanceScale = 3) =>
      draw({ guidanceChannels, guidanceScale, numInferenceSteps: 1 });
    const [all, two, none] = [await at("all"), await at(2), await at("all", 1)];
    const [height, width] = pipeline.imageSize();
    const area = height * width;
    expect(two.latents.slice(0, 2 * area)).toEqual(all.latents.slice(0, 2 * area));
    expect(relativeError(two.latents.slice(2 * area), none.latents.slice(2 * area))).toBeLessThan(1e-5);
    // The first step is mostly noise whatever the guidance.
    expect(relativeError(all.latents.slice(2 * area), none.latents.slice(2 * area))).toBeGreaterThan(1e-4);
  });

  test("the result's latents are those of the last step, and enough if nothing is to be decoded", async () => {
    const options = { classLabels: [0, 1, 2], batchSize: 2, numInferenceSteps: 2 };
    const [whole, bare] = [await draw(options), await draw({ ...options, outputType: "latent" })];
    expect(bare.images).toEqual([]);
    expect(bare.result.latents).toEqual(whole.result.latents);
    expect(whole.result.latents.slice(2 * values)).toEqual(whole.latents); // of the last batch
    expect(Array.from(whole.images[2]?.data ?? [])).toEqual(
      Array.from({ length: values }, (_, i) => {
        const value = whole.latents[(i % 3) * tiny.size ** 2 + Math.floor(i / 3)] as number;
        return Math.round(Math.min(Math.max(value / 2 + 0.5, 0), 1) * 255);
      }),
    );
  });

  test("latents of one's own stay as they were and give images without a seed", async () => {
    const latents = noise([1, 3, tiny.size, tiny.size], 1).data as Float32Array;
    const copy = Float32Array.from(latents);
    const { images } = await draw({ latents, numInferenceSteps: 2 });
    expect(latents).toEqual(copy);
    expect(images[0]?.seed).toBeUndefined();
  });
});

describe.each(["none" as const, ...caching])("contract: %s", (method) => {
  const interval = 3;
  const cache = (method === "none" ? "none" : { method, interval, granularity: "module" }) as CacheOptions;

  test("the report is consistent, and forecasting saves work", async () => {
    const seen: number[] = [];
    const steps = 7;
    const { images, report } = await draw({
      classLabels: [0, 1, 2],
      numInferenceSteps: steps,
      batchSize: 2,
      cache,
      onStep: ({ step, numInferenceSteps, images, latents }) => {
        expect(numInferenceSteps).toBe(steps);
        expect(latents).toHaveLength(images.length * values);
        seen.push(step);
      },
    });
    expect(images).toHaveLength(3);
    expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6]);
    const fullSteps = method === "none" ? [0, 1, 2, 3, 4, 5, 6] : [0, 1, 4];
    expect(report.fullSteps).toEqual([fullSteps, fullSteps, fullSteps]);
    expect(report.cache.method).toBe(method);

    let sum = 0;
    for (const batch of report.batches) {
      expect(batch.steps.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6]);
      for (const step of batch.steps) {
        const full = fullSteps.includes(step.step);
        expect(step.full).toBe(full);
        expect(step.kind).toBe(full ? "full" : "forecast");
        expect(step.durationMs).toBeGreaterThan(0);
        expect(step.beta !== undefined).toBe(full && momentum(method));
        const measured = method !== "none" && full && step.step > 0;
        expect(step.forecastError !== undefined).toBe(measured);
        if (measured) {
          expect(step.forecastError?.byFeature).toHaveLength(2 * tiny.blocks); // two modules in each
          expect(step.forecastError?.relativeError).toBeGreaterThan(0);
          expect(step.forecastError?.relativeError).toBeLessThan(2);
        }
        sum += step.flops;
      }
    }
    const { done, uncached, speedup } = report.flops;
    const plain = await draw({ classLabels: [0, 1, 2], numInferenceSteps: steps, batchSize: 2 });
    expect(uncached).toBe(plain.report.flops.done);
    expect(speedup).toBeCloseTo(uncached / done, 12);
    // The rest is the conditioning, which an uncached run has too.
    const plainSteps = plain.report.batches
      .flatMap((batch) => batch.steps)
      .reduce((total, { flops }) => total + flops, 0);
    expect(done - sum).toBe(plain.report.flops.done - plainSteps);
    if (method === "none") expect(speedup).toBe(1);
    else expect(speedup).toBeGreaterThan(1.5);
    if (method === "none") expect(pixels(plain)).toEqual(images.flatMap(({ data }) => Array.from(data)));
    expect(report.stepsMs + report.conditioningMs).toBeLessThanOrEqual(report.totalMs);

    // Order 2, two images and their guidance rows. Measuring keeps the feature that falls out of the history until it
    // is done; two averages have one buffer in common besides.
    const kept: Partial<Record<CacheMethod, number>> = {
      none: 0,
      fora: 2,
      taylorSeer: 4,
      newton: 4,
      femo: 5,
      adaptedFemo: 5,
      hiCache: 3, // of order 1
      foca: 4,
    };
    const tensors = kept[method] as number;
    const spare = momentum(method) ? 2 : Number(method === "foca");
    expect(report.stateBytes).toBe(4 * (2 * 2) * (2 * tiny.blocks * tensors + spare) * tiny.tokens * tiny.width);
  });
});

test.each(caching)("%s without measuring draws the same", async (method) => {
  const options = (measure: boolean) => ({
    cache: { method, interval: 3, measure, granularity: "stack" } as CacheOptions,
  });
  const [blind, measured] = [await draw(options(false)), await draw(options(true))];
  expect(blind.latents).toEqual(measured.latents);
  const records = (result: GenerationResult) => result.report.batches.flatMap(({ steps }) => steps);
  expect(records(blind).some(({ forecastError }) => forecastError)).toBe(method === "adaptedFemo"); // which cannot do without
  expect(records(measured).some(({ forecastError }) => forecastError)).toBe(true);
});

test("momentum moves the image, and adapting moves beta within its bounds", async () => {
  const femo = (beta: number) => draw({ cache: { method: "femo", interval: 3, beta, granularity: "stack" } });
  const taylor = await draw({ cache: { method: "taylorSeer", interval: 3, granularity: "stack" } });
  expect(relativeError((await femo(0)).latents, taylor.latents)).toBeLessThan(1e-5);
  expect(relativeError((await femo(-0.3)).latents, taylor.latents)).toBeGreaterThan(1e-4);
  const { report } = await draw({
    cache: { method: "adaptedFemo", interval: 2, beta: 0.1, gamma: 0.02, delta: 0.03, order: 1, granularity: "module" },
    numInferenceSteps: 16,
  });
  const betas = report.batches[0]?.steps.flatMap(({ beta }) => (beta ? [beta] : [])) ?? [];
  expect(betas[0]).toEqual({ mean: expect.closeTo(0.1, 9), min: 0.1, max: 0.1 });
  expect(Math.min(...betas.map(({ min }) => min))).toBeGreaterThanOrEqual(0.07 - 1e-9);
  expect(Math.max(...betas.map(({ max }) => max))).toBeLessThanOrEqual(0.13 + 1e-9);
  // Features part on the way: one's norm grows while another's falls.
  expect(Math.max(...betas.map(({ min, max }) => max - min))).toBeGreaterThan(0.03);
});

test("any set of full steps is a schedule", async () => {
  const { report } = await draw({ cache: { method: "taylorSeer", fullSteps: [0, 2, 3, 5] } });
  expect(report.fullSteps).toEqual([[0, 2, 3, 5]]);
});

describe("stopping", () => {
  test("a signal stops between steps with its reason, and the pipeline goes on", async () => {
    const wanted = await draw({ numInferenceSteps: 3, cache: "femo" });
    const [controller, reason, seen] = [new AbortController(), new Error("enough"), [] as number[]];
    const stopped = draw({
      cache: "femo",
      signal: controller.signal,
      onStep({ step }) {
        seen.push(step);
        if (step === 1) controller.abort(reason);
      },
    });
    await expect(stopped).rejects.toBe(reason);
    expect(seen).toEqual([0, 1]);
    expect((await draw({ numInferenceSteps: 3, cache: "femo" })).latents).toEqual(wanted.latents);
  });

  test("a signal that was aborted before starts nothing", async () => {
    const seen: number[] = [];
    const stopped = draw({ signal: AbortSignal.abort("no"), onStep: ({ step }) => seen.push(step) });
    await expect(stopped).rejects.toBe("no");
    expect(seen).toEqual([]);
  });

  test("what onStep throws ends the request", async () => {
    const error = new Error("mine");
    const stopped = draw({
      onStep() {
        throw error;
      },
    });
    await expect(stopped).rejects.toBe(error);
  });
});
