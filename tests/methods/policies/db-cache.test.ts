import { describe, expect, test } from "vitest";
import type { CacheOptions } from "../../../src/methods/index.js";
import { type StepsMaskName, stepsMask, stepsMaskNames } from "../../../src/methods/schedules/index.js";
import { flux } from "../../../src/models/flux.js";
import { fluxDev } from "../../../src/models/flux-config.js";
import { type Cut, type TracedGraph, traceCut } from "../../../src/tracing/index.js";
import { tinyRuns } from "../../denoising/tiny-runs.js";
import { relativeError } from "../../runtime/helpers.js";
import { femoError } from "../../weights/helpers.js";
import { random } from "../forecasts/replay.js";
import { decided, draw, kindsOf, methodFor, someChanges } from "./helpers.js";

type Looking = Extract<Exclude<CacheOptions, string>, { method: "firstBlock" | "dbCache" }>;
type Fields = Omit<Extract<Exclude<CacheOptions, string>, { method: "dbCache" }>, "method">;
/** A threshold between these: "near" is below it, "far" above. */
const [near, far] = [0.01, 0.5];
const kinds = (changes: readonly number[], fields: Fields, due: number[] = []): string =>
  decided({ method: "dbCache", maxWarmupSteps: 0, threshold: 0.1, ...fields }, changes, due);
const still = new Array<number>(12).fill(near);

describe("each limit in turn, where nothing moves", () => {
  test.each<[string, Fields, string]>([
    ["none", {}, "Fccccccccccc"],
    ["warm-up", { maxWarmupSteps: 3 }, "FFFccccccccc"],
    ["warm-up of every second step", { maxWarmupSteps: 5, warmupInterval: 2 }, "FcFcFccccccc"],
    ["steps in all", { maxCachedSteps: 4 }, "FccccFFFFFFF"],
    ["steps in a row", { maxContinuousCachedSteps: 2 }, "FccFccFccFcc"],
    ["steps in a row, as cache-dit counts them", { maxContinuousCachedSteps: 1, compat: true }, "FcFccFccFccF"],
    ["changes added up", { maxAccumulatedChange: 0.045 }, "FcccccFFFFFF"],
    ["a threshold of 0", { threshold: 0 }, "FFFFFFFFFFFF"],
    [
      "a mask that is obeyed",
      { stepsMask: [1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1], maskPolicy: "static" },
      "FFccFcccFccF",
    ],
    [
      "warm-up ends where the mask's first ones do",
      { maxWarmupSteps: 6, stepsMask: [1, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1] },
      "FFccFcccFccF",
    ],
  ])("%s", (_, fields, wanted) => {
    expect(kinds(still, fields)).toBe(wanted);
  });
});

test("what has moved far is computed, but where the threshold is 1 or a mask that is obeyed says otherwise", () => {
  const moving = still.map((change, i) => (i % 4 === 3 ? far : change));
  expect(kinds(moving, {})).toBe("FccFcccFcccF");
  expect(kinds(moving, { threshold: 1 })).toBe("Fccccccccccc");
  expect(kinds(moving, { threshold: 0.5 })).toBe("FccFcccFcccF"); // the limit itself is too far
  const mask = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1] as const;
  expect(kinds(moving, { stepsMask: mask, maskPolicy: "dynamic" })).toBe("FccFcccFcFcF");
  expect(kinds(moving, { stepsMask: mask, maskPolicy: "static" })).toBe("FccccccccFcF");
});

test("a step that has to be full is, and ends the run", () => {
  expect(kinds(still, { maxContinuousCachedSteps: 3 }, [2])).toBe("FcFcccFcccFc");
});

/** Section 7 of its specification: the order of the tests, and cache-dit's count of steps in a row. */
function simulated(changes: readonly number[], fields: Fields): string {
  const { threshold = 0, maxWarmupSteps: W = 0, warmupInterval: w = 1, stepsMask: mask, maskPolicy, compat } = fields;
  const { maxCachedSteps: most = -1, maxContinuousCachedSteps: row = -1, maxAccumulatedChange: sum = -1 } = fields;
  const cachedSteps: number[] = [];
  let [run, added] = [0, 0];
  const computes = (i: number): boolean => {
    const ones = Array.isArray(mask) ? mask.join("").match(/^1*/)?.[0].length : undefined;
    if (i === 0) return true;
    if (i < Math.min(W, ones ?? W) && i % w === 0) return true;
    if (Array.isArray(mask) && mask[i]) return true;
    if (mask && maskPolicy === "static") return false;
    if (most >= 0 && cachedSteps.length >= most) return true;
    if (row >= 0 && run >= row) {
      run = 0;
      return true;
    }
    if (sum >= 0 && added >= sum) return true;
    added += changes[i] as number;
    return !((changes[i] as number) < threshold);
  };
  return changes
    .map((_, i) => {
      if (computes(i)) {
        if (!compat) run = 0;
        return "F";
      }
      if (!compat) run += 1;
      else if (cachedSteps.length === 0) run = 1;
      else if (cachedSteps.at(-1) === i - 1) run = run === 0 ? 2 : run + 1;
      cachedSteps.push(i);
      return "c";
    })
    .join("");
}

test.each([false, true])("all limits together, on any changes: compat %s", (compat) => {
  for (let seed = 0; seed < 200; seed++) {
    const next = random(seed);
    const upTo = (n: number) => Math.floor(((next() + 1) / 2) * (n + 1));
    const maybe = <T>(value: T) => (next() < 0 ? undefined : value);
    const changes = someChanges(30, seed + 1000, 0.1);
    const fields = {
      threshold: 0.15,
      compat,
      maxWarmupSteps: upTo(8),
      warmupInterval: 1 + upTo(2),
      maxCachedSteps: maybe(upTo(20)),
      maxContinuousCachedSteps: maybe(upTo(4)),
      maxAccumulatedChange: maybe(0.5 + upTo(2)),
      stepsMask: maybe(changes.map((_, i): 0 | 1 => (i < 2 || next() < -0.5 ? 1 : 0))),
      maskPolicy: next() < 0 ? "static" : "dynamic",
    } as const;
    expect(kinds(changes, fields), JSON.stringify(fields)).toBe(simulated(changes, fields));
  }
});

describe("masks", () => {
  const text = (name: StepsMaskName, numSteps: number): string => stepsMask(name, numSteps).join("");
  const computed = (name: StepsMaskName, numSteps: number) => stepsMask(name, numSteps).filter(Boolean).length;

  test("of 28 and of 50 steps are those that cache-dit prints", () => {
    expect(stepsMaskNames.map((name) => computed(name, 28))).toEqual([18, 15, 11, 8]);
    expect(stepsMaskNames.map((name) => computed(name, 50))).toEqual([38, 29, 20, 14]);
    expect(text("fast", 28)).toBe("1111110100010000100000100001");
    expect(text("fast", 50)).toBe("11111111111001100000110000000110000000001100000001");
    expect(text("ultra", 50)).toBe("11111110001100000000011000000000001100000000000001");
  });

  test("of any number of steps have as many, and compute the first and the last", () => {
    for (const name of stepsMaskNames) {
      for (let numSteps = 16; numSteps <= 120; numSteps++) {
        const mask = stepsMask(name, numSteps);
        expect(mask).toHaveLength(numSteps);
        expect([mask[0], mask.at(-1)]).toEqual([1, 1]);
      }
    }
    expect([text("slow", 4), text("ultra", 6)]).toEqual(["1101", "111001"]);
  });

  test("that do not fit the number of steps are refused", async () => {
    const check = (mask: Fields["stepsMask"], numSteps: number) =>
      femoError("E_OPTION", () => methodFor({ method: "dbCache", stepsMask: mask }).checkSteps?.(numSteps));
    expect(await check("fast", 12)).toContain("found 12: give the mask itself");
    expect(await check([1, 0, 1], 4)).toContain("expected 4 numbers, one for each step, found 3");
  });
});

test("front and back leave a block between them", async () => {
  const message = await femoError("E_OPTION", () => methodFor({ method: "dbCache", frontBlocks: 6, backBlocks: 2 }));
  expect(message).toContain("fewer than the model's 8 blocks in all, found 6 and 2");
});

test.each([
  [8, 0],
  [19, 5],
  [25, 2],
])("on FLUX front and back count double and single blocks alike: %i and %i", (frontBlocks, backBlocks) => {
  const model = flux(fluxDev);
  const { cuts, policy } = methodFor({ method: "dbCache", frontBlocks, backBlocks }, model);
  const { full, forecast } = cuts as Record<string, Cut>;
  const look = traceCut(model, policy.looks[0]?.cut ?? {});
  const computed = traceCut(model, full ?? {});
  const cached = traceCut(model, { ...forecast, state: { history: 1, averages: 0 } });
  expect(look.captured[0]?.name).toMatch(/^transformer_blocks\.0-\d+\.image$/); // the text does not decide
  expect(computed.begin).toEqual(look.end);
  expect(cached.begin).toEqual(look.end);
  expect(cached.forecasts).toEqual(computed.captured);
  const blocks = ({ graph }: TracedGraph) =>
    new Set(
      graph.reachable().weights.flatMap(({ name }) => name.match(/^(single_)?transformer_blocks\.\d+/)?.[0] ?? []),
    );
  expect([look, computed, cached].map((graph) => blocks(graph).size)).toEqual([
    frontBlocks,
    57 - frontBlocks,
    backBlocks,
  ]);
});

describe("on a model", () => {
  const { backbone, run } = tinyRuns();

  const letters = (kinds: readonly string[]) => kinds.map((kind) => (kind === "full" ? "F" : "c")).join("");
  test.each<[string, number, Looking]>([
    ["first-block cache", 1, { method: "firstBlock" }],
    ["first-block cache with TaylorSeer", 2, { method: "firstBlock", order: 1, warmupSteps: 2 }],
    ["DBCache with TaylorSeer", 2, { method: "dbCache", maxWarmupSteps: 2, calibrator: "taylorSeer" }],
    ["DBCache with FEMO", 2, { method: "dbCache", maxWarmupSteps: 2, calibrator: "femo", order: 2 }],
    ["DBCache with FoCa", 2, { method: "dbCache", maxWarmupSteps: 2, calibrator: "foca" }],
  ])("images that decide differently part, and each gets what it gets alone: %s", async (_, warmup, cache) => {
    const images = [0, 1, 2, 3];
    // So that some have moved too far at the first step that is not bound to be full, and some have not.
    const full = await draw(run, methodFor({ ...cache, threshold: 0 }, backbone().model), images, warmup + 1);
    const moved = full.decisions.map((decisions) => decisions[warmup]?.seen as number);
    const threshold = (Math.min(...moved) + Math.max(...moved)) / 2;
    const method = methodFor({ ...cache, threshold }, backbone().model);
    const together = await draw(run, method, images, 12);
    for (const i of images) {
      const changes = (together.decisions[i] ?? []).map(({ seen }) => seen ?? 0);
      expect(letters(kindsOf(together.steps, i))).toBe(simulated(changes, { threshold, maxWarmupSteps: warmup }));
      const alone = await draw(run, method, [i], 12);
      expect(relativeError(together.latents[i] as Float32Array, alone.latents[0] as Float32Array)).toBeLessThan(1e-5);
    }
    expect(new Set(images.map((i) => letters(kindsOf(together.steps, i)))).size).toBeGreaterThan(1);
  });

  test.each<CacheOptions>([
    { method: "firstBlock", threshold: 0 },
    { method: "dbCache", threshold: 0 },
  ])("at a threshold of 0 it computes what an uncached run does, and no more: %j", async (cache) => {
    const [found, wanted] = [
      await draw(run, methodFor(cache, backbone().model), [0, 1], 6),
      await draw(run, methodFor("none", backbone().model), [0, 1], 6),
    ];
    for (const i of [0, 1]) {
      expect(relativeError(found.latents[i] as Float32Array, wanted.latents[i] as Float32Array)).toBeLessThan(1e-5);
    }
    const flops = ({ steps }: typeof found) => steps.reduce((sum, step) => sum + step.flops, 0);
    expect(flops(found) / flops(wanted)).toBeLessThan(1.02);
  });
});
