import { expect, test } from "vitest";
import type { CacheOptions, GenerateOptions } from "../../src/index.js";
import { openTinyPipeline } from "../tiny-pipeline.js";

const { pipeline } = await openTinyPipeline();

const request = (cache: CacheOptions): GenerateOptions => ({
  classLabels: ["oak", "ibis", "oak"],
  numInferenceSteps: 4,
  batchSize: 2,
  outputType: "latent",
  cache,
});

test("of a batch, and of one that is not full", async () => {
  const { report } = await pipeline.generate(request("femo"));
  expect(pipeline.plannedFlops(request("femo"))).toEqual(report.flops);
});

test.each(["module", "block", "stack", "output"])("so it is at the level %s, without guidance", async (granularity) => {
  const options = { ...request({ method: "adaptedFemo", granularity, interval: 2 }), guidanceScale: 1 };
  const planned = pipeline.plannedFlops(options);
  const { report } = await pipeline.generate(options);
  expect(planned).toEqual(report.flops);
});

test("bad options are refused as by the request", () => {
  expect(() => pipeline.plannedFlops({ ...request("femo"), numInferenceSteps: 0 })).toThrow("numInferenceSteps");
});
