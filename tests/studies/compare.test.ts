import { beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { cacheMethods, type MultistepSolver } from "../../src/index.js";
import {
  type CompareOptions,
  type CompareResult,
  type CompareVariant,
  type Comparison,
  compare,
  comparisonHtml,
  comparisonTable,
  type DefaultVariantOptions,
  defaultVariants,
  planComparison,
  recommendedMethods,
  uncachedStepMs,
  variantsAtSpeedup,
} from "../../src/studies/index.js";
import { planFor } from "../../src/studies/plan.js";
import { fittedSolver, openTinyPipeline } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

const { pipeline } = await openTinyPipeline();
const { pipeline: flow } = await openTinyPipeline({
  scheduler: { _class_name: "FlowMatchEulerDiscreteScheduler", shift: 3 },
});
const { pipeline: fitted } = await openTinyPipeline({
  solvers: [
    fittedSolver(2, "converged"),
    fittedSolver(4, "converged"),
    fittedSolver(4, "reference"),
    fittedSolver(9, "converged"),
  ],
});
let comparison: Comparison;
const results: CompareResult[] = [];

beforeAll(async () => {
  comparison = await compare(pipeline, {
    classLabels: ["micah", "ibis"],
    numInferenceSteps: 6,
    seed: 5,
    batchSize: 1,
    onResult: (result) => results.push(result),
    variants: [
      { name: "every step", cache: { method: "femo", interval: 1 } },
      { name: "FORA", cache: { method: "fora", interval: 3 } },
      { name: "half the steps", numInferenceSteps: 3 },
      {
        name: "half, by another sampler",
        numInferenceSteps: 3,
        sampler: { sampler: "dpm-solver++", solverType: "heun" },
        timestepSpacing: "trailing",
      },
    ],
  });
});

test("each variant is measured against the uncached images of the same seeds", () => {
  const [reference, everyStep, fora, half, other] = comparison.rows;
  expect(comparison.subjects.map(({ seed }) => seed)).toEqual([5, 6]);
  expect(reference).toMatchObject({ flopsSpeedup: 1, measuredSpeedup: 1 });
  expect(reference?.psnr).toBeUndefined();
  expect(everyStep?.psnr?.mean).toBeGreaterThan(60);
  expect(fora?.fullSteps).toEqual([
    [0, 1, 4],
    [0, 1, 4],
  ]);
  expect(fora?.psnr?.mean).toBeLessThan(60);
  expect(fora?.flopsSpeedup).toBeGreaterThan(1.5);
  expect(fora?.flopsSpeedup).toBeLessThan(2);
  expect(half?.flopsSpeedup).toBeCloseTo(2, 1);
  expect([half, other].map((row) => row?.sampler)).toEqual(["ddim", "dpm-solver++"]);
  expect([half, other].map((row) => row?.samplerSettings)).toEqual([undefined, { solverType: "heun" }]);
  expect(other?.timestepSpacing).toBe("trailing");
  expect(other?.flopsSpeedup).toBe(half?.flopsSpeedup);
  expect(other?.psnr?.mean).not.toBe(half?.psnr?.mean);
});

test("each variant tells its result of each round, in turns, against the reference where that came before", () => {
  const names = comparison.rows.map(({ name }) => name);
  expect(results.map(({ variant }) => variant)).toEqual([...names, ...names.toReversed()]);
  expect(results.map(({ round, rounds, images }) => [round, rounds, images])).toEqual(
    results.map((_, i) => [i < names.length ? 1 : 2, 2, 1]),
  );
  const [first, fora] = [results[0], results[2]];
  expect([first?.psnr, first?.measuredSpeedup, results.at(-1)?.psnr, results[6]?.psnr]).toEqual(
    new Array(4).fill(undefined),
  );
  expect(fora?.psnr).toBe(comparison.rows[2]?.psnr?.values[0]);
  for (const { variant, durationMs } of results) {
    const row = comparison.rows.find(({ name }) => name === variant);
    expect(durationMs).toBeLessThan(row?.durationMs as number);
  }
});

test("spacings are the variants' own and reported, with what they cost", async () => {
  expect(comparison.rows.map(({ timestepSpacing }) => timestepSpacing)).toEqual([
    ...new Array(4).fill("leading"),
    "trailing",
  ]);
  const { rows } = await compare(pipeline, {
    classLabels: [0],
    numInferenceSteps: 2,
    variants: [{ name: "beside", timestepSpacing: "linspace" }],
  });
  expect(rows[0]?.warnings).toEqual([]);
  expect(rows[1]?.warnings.join()).toContain("lands beside its own list");
});

test("a solver as data is a variant or the reference, with as many steps as it has", async () => {
  const solver: MultistepSolver = { sampler: "multistep", timesteps: [90, 10], table: [[1], [0, 1]] };
  const variant = await compare(pipeline, {
    classLabels: [0],
    numInferenceSteps: 3,
    timestepSpacing: "dit",
    variants: [{ name: "solver", sampler: solver }],
  });
  expect(variant.rows.map(({ sampler, numInferenceSteps }) => [sampler, numInferenceSteps])).toEqual([
    ["ddim", 3],
    ["multistep", 2],
  ]);
  const reference = await compare(pipeline, {
    classLabels: [0],
    sampler: solver,
    variants: [{ name: "FORA", cache: { method: "fora", interval: 2, firstEnhance: 1 } }],
  });
  expect(reference.rows.map(({ sampler, fullSteps }) => [sampler, fullSteps])).toEqual([
    ["multistep", [[0, 1]]],
    ["multistep", [[0]]],
  ]);
});

test.each<[string, object | null]>([
  ["options: expected an object", null],
  ["variants", { variants: "femo" }],
  ["variants", { variants: [{}] }],
  ["classLabels", { classLabels: [] }],
  ["classLabels", { classLabels: [null] }],
  ["cache: there is no such option", { cache: "femo" }],
  ["numImagesPerPrompt", { numImagesPerPrompt: 0 }],
  ["images in all", { classLabels: new Array(30).fill(0), numImagesPerPrompt: 100_000 }],
  ["seed", { seed: 0.5 }],
  ["cache", { variants: [{ name: "x", cache: null }] }],
  ["numInferenceSteps", { variants: [{ name: "x", numInferenceSteps: 1e12 }] }],
  ["numInferenceSteps", { numInferenceSteps: 1e12, variants: undefined }],
  ["convergedSteps", { convergedSteps: 0 }],
  ["convergedSteps", { convergedSteps: 101 }],
  ["fullSteps", { variants: [{ name: "x", cache: { method: "fora", fullSteps: [0, 1, 2] }, numInferenceSteps: 2 }] }],
])("%s is refused before anything is drawn", async (words, options) => {
  const seen: CompareResult[] = [];
  const given = options && {
    classLabels: [0],
    numInferenceSteps: 2,
    onResult: (x: CompareResult) => seen.push(x),
    ...options,
  };
  const message = await femoError("E_OPTION", () => compare(pipeline, given as unknown as CompareOptions));
  expect(message).toContain(words);
  expect(seen).toEqual([]);
});

test("seeds go on in 64 bits from image to image", async () => {
  const { subjects } = await compare(pipeline, {
    classLabels: [0, 1],
    numInferenceSteps: 1,
    seed: -1,
    batchSize: 1,
    variants: [],
  });
  expect(subjects.map(({ seed }) => seed)).toEqual([2n ** 64n - 1n, 0]);
});

test("a step is timed as the request draws it, and no more of them than that takes", async () => {
  expect(await uncachedStepMs(pipeline, { classLabels: 0, numInferenceSteps: 1 })).toBeGreaterThan(0);
  let steps = 0;
  const stream = pipeline.stream.bind(pipeline);
  const counting = async function* (drawn: ReturnType<typeof stream>) {
    for await (const step of drawn) {
      steps++;
      yield step;
    }
  };
  const counted = vi.spyOn(pipeline, "stream").mockImplementation((options) => {
    const drawn = stream(options);
    return Object.assign(counting(drawn), { result: drawn.result });
  });
  onTestFinished(() => counted.mockRestore());
  const request = { classLabels: [0, 1], guidanceScale: 1.5, numInferenceSteps: 20 };
  expect(await uncachedStepMs(pipeline, request, { steps: 2 })).toBeGreaterThan(0);
  expect(steps).toBe(3);
  const wrong = { ...request, guidanceScale: Number.NaN };
  expect(await femoError("E_OPTION", () => uncachedStepMs(pipeline, wrong))).toContain("guidanceScale");
  const stopped = AbortSignal.abort(new Error("stop"));
  await expect(uncachedStepMs(pipeline, { ...request, signal: stopped })).rejects.toThrow("stop");
});

describe("a plan", () => {
  const plan = (options: CompareOptions) =>
    planComparison(pipeline, { variants: defaultVariants(pipeline), numInferenceSteps: 2, ...options });

  test("leaves what is given and chooses the rest within its bounds", async () => {
    const chosen = await plan({});
    expect(chosen.images).toBeGreaterThanOrEqual(1);
    expect(chosen.subjects).toEqual({ classLabels: [...pipeline.classes.keys()].slice(0, chosen.images) });
    expect(chosen.batchSize).toBeGreaterThanOrEqual(1);
    expect(chosen.batchSize).toBeLessThanOrEqual(Math.min(5, chosen.images));
    expect(await plan({ classLabels: ["micah"], batchSize: 7, numImagesPerPrompt: 3 })).toMatchObject({
      subjects: { classLabels: ["micah"] },
      batchSize: 7,
      images: 3,
    });
  });

  test.each([
    [12, 5, 5], // all classes of this model
    [30, 5, 2],
    [60, 4, 1],
    [200, 1, 1],
    [3000, 1, 1],
  ])("for %i ms a step is %i images, %i at a time", (stepMs, images, batch) => {
    const methods = ["fora", "taylorSeer", "newton", "femo", "adaptedFemo"] as const;
    const {
      images: chosen,
      batchSize,
      expectedMs,
    } = planFor(stepMs, pipeline, {
      variants: defaultVariants(pipeline, { methods }),
    });
    expect([chosen, batchSize]).toEqual([images, batch]);
    if (images > 1) expect(expectedMs).toBeLessThan(55_000);
    if (batch > 1) expect(51 * batch * stepMs).toBeLessThan(4_000); // the uncached batch, and a step before it
  });

  test("of one image each where more would not be done in time, and expects what that takes", async () => {
    const many = Array.from({ length: 100_000 }, (_, i) => ({ name: `run ${i}`, numInferenceSteps: 50 }));
    const { subjects, batchSize, stepMs, expectedMs } = await plan({ variants: many, numInferenceSteps: 50 });
    expect([subjects, batchSize]).toEqual([{ classLabels: [0] }, 1]);
    expect(expectedMs / stepMs).toBeCloseTo(100_001 * 50 + 3 * 100_000 + 1, -1);
  });
});

test("the methods' rivals are the steps of each sampler that cost as much, unless the methods save nothing", () => {
  const variants = (interval: number, numInferenceSteps = 50) =>
    defaultVariants(pipeline, { methods: ["fora"], numInferenceSteps, interval });
  const [fora, ...rivals] = variants(5);
  const { speedup } = pipeline.plannedFlops({ classLabels: 0, cache: fora?.cache ?? "none" }) ?? {};
  const steps = Math.round(50 / (speedup as number));
  expect(steps).toBeGreaterThan(11); // the full ones, and what the forecasts cost
  expect(rivals).toEqual([
    { name: `${steps} DDIM steps`, sampler: "ddim", timestepSpacing: "leading", numInferenceSteps: steps },
    {
      name: `${steps} DPM-Solver++ steps`,
      sampler: "dpm-solver++",
      timestepSpacing: "trailing",
      numInferenceSteps: steps,
    },
  ]);
  expect(variants(1).slice(1)).toEqual([]);
  const many = variants(2, 100).slice(1);
  expect(many.map(({ timestepSpacing, numInferenceSteps = 0 }) => [timestepSpacing, numInferenceSteps > 50])).toEqual([
    ["dit", true],
    ["trailing", true],
  ]);
});

test("the rivals on a flow are the samplers of flows, in the model's own spacing", async () => {
  const variants = defaultVariants(flow, { methods: ["fora"], numInferenceSteps: 20 });
  expect(variants.map(({ sampler, timestepSpacing }) => [sampler, timestepSpacing])).toEqual([
    [undefined, undefined],
    ["euler", undefined],
    ["dpm-solver++", undefined],
  ]);
  const { rows } = await compare(flow, { classLabels: [0], numInferenceSteps: 20, variants });
  expect(rows.slice(1).map(({ psnr }) => Number.isFinite(psnr?.mean))).toEqual([true, true, true]);
});

test("at a FLOPs speed-up each method and each rival comes as near as it can", async () => {
  const variants = await variantsAtSpeedup(pipeline, {
    methods: ["fora", "femo"],
    granularities: ["stack", "output"],
    numInferenceSteps: 20,
    order: 1,
    speedup: 2,
  });
  expect(variants.map(({ name }) => name)).toEqual([
    "FORA, stack",
    "FEMO, stack",
    "FORA, output",
    "FEMO, output",
    "10 DDIM steps",
    "10 DPM-Solver++ steps",
  ]);
  for (const { cache, name } of variants.slice(0, 4)) {
    const flops = pipeline.plannedFlops({ classLabels: 0, numInferenceSteps: 20, cache: cache ?? "none" });
    expect(flops?.speedup, name).toBeGreaterThan(1.6);
    expect(flops?.speedup, name).toBeLessThan(2.4);
  }
  expect(variants[3]?.cache).toMatchObject({ method: "femo", order: 1, granularity: "output" });
});

test("methods that are not named are the recommended ones, and all are all but no cache", () => {
  const methods = (chosen: DefaultVariantOptions) =>
    defaultVariants(pipeline, { ...chosen, fewerSteps: false }).map(
      ({ cache }) => (cache as { method: string }).method,
    );
  expect(methods({})).toEqual(recommendedMethods);
  // MagCache needs ratios that were measured on the model, DeepCache a U-Net, "calibrated" a solver that was fitted.
  const others = cacheMethods.filter((method) => !["none", "magCache", "deepCache", "calibrated"].includes(method));
  expect(methods({ methods: "all" })).toEqual(others);
});

test("the solver that was fitted to the model is among them, of as many runs as cost the same or the next fewer", async () => {
  const ofThem = (variants: CompareVariant[]) =>
    variants.flatMap(({ cache }) => (typeof cache === "object" && cache.method === "calibrated" ? [cache] : []));
  const chosen = (options: DefaultVariantOptions) =>
    ofThem(defaultVariants(fitted, { numInferenceSteps: 20, ...options }));
  const toReference = { method: "calibrated", fullSteps: 4, target: "reference" };
  expect(chosen({})).toEqual([toReference]);
  expect(chosen({ methods: "all" })).toEqual([toReference]);
  const atSpeedup = await variantsAtSpeedup(fitted, { numInferenceSteps: 20, speedup: 7 });
  expect(ofThem(atSpeedup)).toEqual([{ method: "calibrated", fullSteps: 2, target: "converged" }]);
  expect(chosen({ methods: ["fora"] })).toEqual([]);
});

describe("a converged reference", () => {
  const converge = (options: CompareOptions) =>
    compare(pipeline, { classLabels: ["micah", "ibis"], numInferenceSteps: 4, batchSize: 1, variants: [], ...options });

  test("is what every row is compared with too, drawn first in each round", async () => {
    const seen: string[] = [];
    const done: number[] = [];
    const { rows, converged } = await converge({
      convergedSteps: 12,
      variants: [
        { name: "as many steps", numInferenceSteps: 12 },
        { name: "fewer", numInferenceSteps: 2 },
      ],
      onProgress: (progress) => {
        if (seen.at(-1) !== progress.variant) seen.push(progress.variant);
        done.push(progress.done);
      },
    });
    expect(converged).toEqual({ numInferenceSteps: 12, timestepSpacing: "leading" });
    const [reference, many, fewer] = rows.map(({ psnrConverged }) => psnrConverged?.values as number[]);
    expect(many).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
    expect(reference).toEqual(rows[1]?.psnr?.values); // likeness is the same both ways
    for (const value of fewer ?? []) expect(value).toBeLessThan(Math.min(...(reference ?? [])));
    const turns = ["No cache", "as many steps", "fewer"];
    expect(seen).toEqual(["Converged", ...turns, "Converged", ...turns.toReversed()]);
    expect(done).toEqual(done.toSorted((a, b) => a - b));
    expect(done.at(-1)).toBe(1);
    const [heads, first] = comparisonTable({ ...comparison, rows }).split("\n");
    expect(heads).toContain("PSNR to converged");
    expect(first).toContain(rows[0]?.psnrConverged?.median.toFixed(2));
  });

  test('goes by the spacing "dit" where its own does not go so far', async () => {
    const { converged } = await converge({ classLabels: [0], convergedSteps: 60 });
    expect(converged).toEqual({ numInferenceSteps: 60, timestepSpacing: "dit" });
  });

  test("is not there unless it is asked for", async () => {
    expect(comparison.converged).toBeUndefined();
    expect(comparison.rows.map(({ psnrConverged }) => psnrConverged)).toEqual(new Array(5).fill(undefined));
    expect(comparisonTable(comparison)).not.toContain("converged");
  });
});

test("the report has every variant, fetches nothing and escapes names", () => {
  const hostile = '<img src=x onerror="alert(1)"></script>';
  const rows = comparison.rows.map((row, i) => (i === 2 ? { ...row, name: hostile } : row));
  const subjects = comparison.subjects.map((subject) => ({ ...subject, className: hostile }));
  const page = comparisonHtml({ ...comparison, rows, subjects }, { chartJs: "", facts: { Command: hostile } });
  expect(page).not.toContain("<img src=x");
  expect(page).not.toMatch(/(src|href)="?https?:/);
  for (const { name } of comparison.rows.filter((_, i) => i !== 2)) expect(page).toContain(name);
  expect(comparisonTable(comparison).split("\n")).toHaveLength(6);
});
