import { describe, expect, test } from "vitest";
import { adaptedFemo, DiffusionPipeline, femo, fora, newton, taylorSeer } from "../../src/index.js";
import { openTinyPipeline } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

const { pipeline, folder } = await openTinyPipeline();
const request = { classLabels: ["oak", "micah"], seed: 3, numInferenceSteps: 4, cache: "femo" } as const;

describe("stream", () => {
  test("gives the steps of the request one by one, and in the end what generate gives", async () => {
    const wanted = await pipeline.generate(request);
    const stream = pipeline.stream(request);
    const steps = [];
    for await (const step of stream) steps.push(step);
    const { images, latents, report } = await stream.result;
    expect(steps.map(({ step, kind }) => [step, kind])).toEqual(
      wanted.report.batches.flatMap(({ steps }) => steps.map(({ step, kind }) => [step, kind])),
    );
    expect(latents).toEqual(wanted.latents);
    expect(images).toEqual(wanted.images);
    expect(report.fullSteps).toEqual(wanted.report.fullSteps);
    expect(steps.at(-1)?.latents).toEqual(latents);
  });

  test("is left when one has seen enough; the pipeline goes on, and the result says why there is none", async () => {
    const stream = pipeline.stream(request);
    for await (const { step } of stream) if (step === 1) break;
    expect(await femoError("E_RUNTIME", () => stream.result)).toContain("left before its last step");
    expect((await pipeline.generate(request)).images).toHaveLength(2);
  });

  test("checks its request at once", async () => {
    await femoError("E_OPTION", () => pipeline.stream({ ...request, numInferenceSteps: 0 }));
  });

  test("draws what was asked for, whatever becomes of the caller's arrays meanwhile", async () => {
    const latents = (await pipeline.generate({ ...request, numInferenceSteps: 1, outputType: "latent" })).latents;
    const wanted = await pipeline.generate({ ...request, latents });
    const stream = pipeline.stream({ ...request, latents });
    latents.fill(0);
    for await (const _ of stream);
    expect((await stream.result).latents).toEqual(wanted.latents);
  });

  test("stopped after its last step gives no result", async () => {
    const controller = new AbortController();
    const stream = pipeline.stream({ ...request, signal: controller.signal });
    const reason = new Error("enough");
    const drain = async () => {
      for await (const { step } of stream) if (step === 3) controller.abort(reason);
    };
    await expect(drain()).rejects.toBe(reason);
    await expect(stream.result).rejects.toBe(reason);
  });
});

describe("a method as a value", () => {
  test("is its name and fields", async () => {
    expect(femo({ interval: 5, beta: -0.2 })).toEqual({ method: "femo", interval: 5, beta: -0.2 });
    expect([fora(), taylorSeer(), newton(), femo(), adaptedFemo()].map(({ method }) => method)).toEqual([
      "fora",
      "taylorSeer",
      "newton",
      "femo",
      "adaptedFemo",
    ]);
  });

  test("draws what the name and what the plain object draw; undefined counts as left out", async () => {
    const draw = async (cache: Parameters<typeof pipeline.generate>[0]["cache"]) =>
      (await pipeline.generate({ ...request, ...(cache && { cache }) })).latents;
    const wanted = await draw("femo");
    expect(await draw(femo())).toEqual(wanted);
    expect(await draw({ method: "femo" })).toEqual(wanted);
    expect(await draw(femo({ interval: undefined }))).toEqual(wanted);
    expect(await draw(femo({ interval: 1 }))).not.toEqual(wanted);
  });

  test("of a level that the model does not have is refused with those that it has", async () => {
    const message = await femoError("E_OPTION", () =>
      pipeline.generate({ ...request, cache: femo({ granularity: "attic" }) }),
    );
    expect(message).toContain('granularity: expected one of module, block, stack, output, x0, found "attic"');
  });
});

test.each<[unknown]>([[null], [3], [3n], [true]])("warming up for %s is refused", async (cache) => {
  expect(await femoError("E_OPTION", () => pipeline.warmUp(cache as never))).toContain("cache: expected a method");
});

test("presets are not changed in passing", async () => {
  expect(() => Object.assign(pipeline.presets.femo, { order: 1 })).toThrow(TypeError);
  expect(pipeline.presets.femo.order).toBe(2);
});

test("leaving its scope closes a pipeline", async () => {
  const other = await DiffusionPipeline.fromPretrained(folder, { threads: 1 });
  await other[Symbol.asyncDispose]();
  await femoError("E_RUNTIME", () => other.generate(request));
});
