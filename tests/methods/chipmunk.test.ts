import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { type CacheOptions, chipmunk, DiffusionPipeline } from "../../src/index.js";
import { defaultPresets, methodOf, plannedKinds } from "../../src/methods/index.js";
import { relativeError } from "../runtime/helpers.js";
import { openTinyPipeline, tiny } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

const { pipeline, folder } = await openTinyPipeline();

const rounding = 1e-5; // of float32 over the steps, relative to the largest element
const classes = ["oak", "ibis", "micah"];
const draw = (cache: CacheOptions, classLabels = classes, numInferenceSteps = 6) =>
  pipeline.generate({ classLabels, numInferenceSteps, cache });
const own = { denseLayers: 0, interval: 4 };

test("full are the first two steps, and those whose number is a multiple of the interval", () => {
  const kinds = (interval: number): string => {
    const settings = { method: "chipmunk", ...defaultPresets.chipmunk, interval } as const;
    const model = { levels: ["output"], chains: { blocks: 3 }, marks: [] };
    return (plannedKinds(methodOf(settings, model), 9) ?? []).map((kind) => kind[0]).join("");
  };
  expect([1, 2, 3, 4, 10].map(kinds)).toEqual(["fffffffff", "fffsfsfsf", "ffsfssfss", "ffssfsssf", "ffsssssss"]);
});

describe("draws what is drawn without a cache, up to rounding,", () => {
  test.each<[string, CacheOptions]>([
    ["at an interval of 1", chipmunk({ denseLayers: 0, interval: 1 })],
    ["with all neurons and all keys", chipmunk({ ...own, mlpColumns: 1, attentionKeys: 1 })],
    ["with all layers dense", chipmunk({ denseLayers: tiny.blocks })],
  ])("%s", async (_, cache) => {
    const [found, wanted] = [await draw(cache), await draw("none")];
    expect(relativeError(found.latents, wanted.latents)).toBeLessThan(rounding);
  });
});

test("fewer neurons and keys cost less and draw something else", async () => {
  const [few, more, whole] = [
    await draw(chipmunk({ ...own, mlpColumns: 0.1, attentionKeys: 0.1 })),
    await draw(chipmunk({ ...own, mlpColumns: 0.5, attentionKeys: 0.5 })),
    await draw("none"),
  ];
  expect(few.report.flops.done).toBeLessThan(more.report.flops.done);
  expect(more.report.flops.done).toBeLessThan(whole.report.flops.done);
  const errors = [few, more].map(({ latents }) => relativeError(latents, whole.latents));
  expect(Math.min(...errors)).toBeGreaterThan(rounding);
  expect(few.report.fullSteps).toEqual(classes.map(() => [0, 1, 4]));
});

test("an image gets in a batch what it gets alone", async () => {
  const together = await draw(chipmunk(own));
  const size = together.latents.length / classes.length;
  for (const [i, name] of classes.entries()) {
    const alone = await pipeline.generate({ classLabels: [name], numInferenceSteps: 6, seed: i, cache: chipmunk(own) });
    expect(relativeError(alone.latents, together.latents.subarray(i * size, (i + 1) * size))).toBeLessThan(rounding);
  }
});

test("what is kept is counted: an MLP's activations, output and means, attention's rest and keys", async () => {
  const { report } = await draw(chipmunk({ ...own, attentionKeys: 0.25 }));
  const { tokens, width, blocks } = tiny;
  const [activations, results, means] = [tokens * 4 * width, tokens * width, 4 * width];
  const keys = 2 * 2 * (tokens / 4); // int64, two heads
  const rows = 2 * classes.length;
  expect(report.stateBytes).toBe(4 * rows * blocks * (activations + 2 * results + means + keys));
});

test("the guard makes steps full that a schedule would not", async () => {
  const { report } = await draw(chipmunk({ ...own, errorBound: 1e-6 }));
  // Two full steps must have gone by before there is a forecast that was off.
  expect(report.guardedSteps).toEqual(classes.map(() => [2, 3, 5]));
  expect((await draw(chipmunk({ ...own, errorBound: 1e6 }))).report.fullSteps).toEqual(classes.map(() => [0, 1, 4]));
});

test.each<[string, object]>([
  ["mlpColumns", { mlpColumns: 0 }],
  ["mlpColumns", { mlpColumns: 1.1 }],
  ["attentionKeys", { attentionKeys: -0.1 }],
  ["mlpGroup", { mlpGroup: 0 }],
  ["attentionGroup", { attentionGroup: 1.5 }],
  ["denseLayers", { denseLayers: -1 }],
  ["interval", { interval: 0 }],
])("a bad %s is an error: %o", async (field, options) => {
  expect(await femoError("E_OPTION", () => draw(chipmunk(options)))).toContain(field);
});

test("a model without blocks, and one in 8 bits, are refused", async () => {
  const settings = { method: "chipmunk", ...defaultPresets.chipmunk } as const;
  const message = await femoError("E_OPTION", () => methodOf(settings, { levels: ["output"], chains: {}, marks: [] }));
  expect(message).toContain("expected blocks in a row");
  const cache = mkdtempSync(join(tmpdir(), "femo-chipmunk-"));
  vi.stubEnv("FEMO_CACHE", cache);
  try {
    await using int8 = await DiffusionPipeline.fromPretrained(folder, { threads: 1, dtype: "int8" });
    const words = await femoError("E_OPTION", () => int8.generate({ classLabels: "oak", cache: chipmunk(own) }));
    expect(words).toContain('expected dtype "float32", found "int8"');
  } finally {
    vi.unstubAllEnvs();
    rmSync(cache, { recursive: true });
  }
});
