import { afterAll, beforeAll, expect, test } from "vitest";
import { psnr } from "../../src/metrics/index.js";
import { DiffusionPipeline, type GenerateOptions, type GenerationResult } from "../../src/pipelines/index.js";
import { openGolden } from "../models/tiny.js";
import { numbers, relativeError } from "../runtime/helpers.js";

/*
 * What only a trained model of real size can show. Everything else about requests is tested on the tiny one.
 */

let pipeline: DiffusionPipeline;
beforeAll(async () => {
  pipeline = await DiffusionPipeline.fromPretrained("avatars-dit", { threads: 1 });
});
afterAll(() => pipeline.close());

const draw = (options: Partial<GenerateOptions>): Promise<GenerationResult> =>
  pipeline.generate({ classLabels: "lorelei", seed: 3, ...options });

test("ten guided DDIM steps equal diffusers'", async () => {
  const golden = await openGolden("ddim.safetensors");
  const timesteps = numbers(await golden("timesteps"));
  const { report, latents } = await draw({
    classLabels: numbers(await golden("labels")),
    latents: (await golden("latents")).data as Float32Array,
    guidanceScale: numbers(await golden("guidance"))[0] as number,
    numInferenceSteps: timesteps.length,
  });
  expect(report.batches[0]?.steps.map(({ timestep }) => timestep)).toEqual(timesteps);
  expect(relativeError(latents, numbers(await golden("image")))).toBeLessThan(1e-4);
});

test("with every step computed a method changes nothing, to the bit", async () => {
  const plain = await draw({ numInferenceSteps: 2 });
  for (const granularity of ["module", "output"] as const) {
    const cache = { method: "adaptedFemo", granularity, interval: 1 } as const;
    expect((await draw({ numInferenceSteps: 2, cache })).latents).toEqual(plain.latents);
  }
});

test("half of the steps, forecast by the preset, come close to the uncached image", async () => {
  const plain = await draw({ numInferenceSteps: 10 });
  const cached = await draw({ numInferenceSteps: 10, cache: { method: "femo", interval: 2 } });
  expect(cached.report.fullSteps).toEqual([[0, 1, 3, 5, 7, 9]]);
  const [quality] = cached.images.map((image, i) => psnr(image, plain.images[i] as typeof image));
  expect(quality).toBeGreaterThan(25);
  expect(quality).toBeLessThan(99); // the same image would mean that nothing was forecast
});

test("a fitted solver runs the network as often as it says, and says where it was tried", async () => {
  const [solver] = pipeline.solvers;
  const fullSteps = solver?.timesteps.length as number;
  const cache = { method: "calibrated", fullSteps } as const;
  const { report } = await draw({ cache, guidanceScale: solver?.measured.guidanceScale as number });
  expect(report.fullSteps).toEqual([Array.from({ length: fullSteps }, (_, step) => step)]);
  expect(report.warnings).toEqual([]);
  const elsewhere = await draw({ cache, guidanceScale: 4 });
  expect(elsewhere.report.warnings.join()).toContain("not at 4");
});

test("the event loop turns while steps run", async () => {
  await pipeline.warmUp();
  let turns = 0;
  const turn = (): void => {
    turns++;
    next = setImmediate(turn);
  };
  let next = setImmediate(turn);
  try {
    await draw({
      numInferenceSteps: 3,
      onStep({ step }) {
        if (step === 0) turns = 0;
      },
    });
  } finally {
    clearImmediate(next);
  }
  // A few turns pass between two steps whatever happens; hundreds only while another thread runs them.
  expect(turns).toBeGreaterThan(100);
});
