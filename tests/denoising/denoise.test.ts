import { describe, expect, test } from "vitest";
import { Backbone } from "../../src/denoising/backbone.js";
import { Conditioning } from "../../src/denoising/conditioning.js";
import { denoise } from "../../src/denoising/denoise.js";
import { guidanceRows } from "../../src/denoising/guidance.js";
import type { Denoised, DenoisingStep, ImageStart } from "../../src/denoising/records.js";
import { type Forecaster, fora, taylorSeer } from "../../src/methods/forecasts/index.js";
import type { At, Method, Policy } from "../../src/methods/index.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { createSampler, ditScheduler } from "../../src/samplers/index.js";
import { goldenFolder, openModel } from "../models/tiny.js";
import { integers, relativeError } from "../runtime/helpers.js";
import { watchedEngine } from "../runtime/watched-engine.js";
import { femoError } from "../weights/helpers.js";
import { byPattern, tinyRuns } from "./tiny-runs.js";

const CHAIN = "transformer_blocks";
const { engine, run, image, backbone } = tinyRuns();

const flopsOf = ({ steps }: { steps: readonly DenoisingStep[] }): number =>
  steps.reduce((sum, { flops }) => sum + flops, 0);

const level = { level: "module" };
/** The same with steps that correct what the last full one left. */
const correcting = (patterns: readonly string[]): Method => {
  const shares = { mlpColumns: 0.3, mlpGroup: 8, attentionKeys: 0.2, attentionGroup: 8, denseLayers: 0 };
  const { forecaster: _, ...method } = byPattern(fora(), patterns);
  const cuts = { full: { sparse: { step: "keep", ...shares } }, forecast: { sparse: { step: "correct", ...shares } } };
  return { ...method, cuts: cuts as Method["cuts"], measure: false };
};

describe("images of one batch that are decided differently", () => {
  const patterns = ["FFfFffFf", "FFfFffFf", "FFFffFff", "FfFFffFf"];
  test.each<[string, Method]>([
    ["FORA", byPattern(fora(), patterns)],
    ["TaylorSeer", byPattern(taylorSeer(2) as Forecaster, patterns)],
    ["what full steps left", correcting(patterns)],
  ])("each get what they get alone: %s", async (_, method) => {
    const together = await run(method, [0, 1, 2, 3]);
    for (const [i, latent] of together.latents.entries()) {
      const alone = await run(method, [i]);
      expect(relativeError(latent, alone.latents[0] as Float32Array)).toBeLessThan(1e-5);
      const kinds = (steps: readonly DenoisingStep[]) =>
        steps.filter(({ images }) => images.includes(i)).map(({ kind }) => kind);
      expect(kinds(together.steps)).toEqual(kinds(alone.steps));
    }
    // Together as long as they agree: one run for all, then two, then three.
    expect(together.steps.map(({ images }) => images.join("")).slice(0, 5)).toEqual(["0123", "012", "3", "01", "2"]);
  });

  test("cost what their own runs cost", async () => {
    const method = byPattern(fora(), ["FFff", "Ffff"]);
    const together = await run(method, [0, 1], 4);
    expect(flopsOf(together)).toBeCloseTo(flopsOf(await run(method, [0], 4)) + flopsOf(await run(method, [1], 4)), 0);
  });
});

describe("a policy that looks before it decides", () => {
  const place = { chain: CHAIN, block: 1 };
  /** First-block cache: the front always runs; the rest is forecast while the front's stream has changed little. */
  const firstBlock = (threshold: number, seenBy: (number | undefined)[][] = []): Method => {
    const policy: Policy<number> = {
      looks: [{ cut: { to: place }, of: { stream: "x" }, against: "last full", measure: "l1" }],
      start: () => 0,
      decide(memory, { step }: At, seen) {
        seenBy.push([step, ...seen]);
        const [change] = seen;
        return { memory, kind: change !== undefined && change < threshold ? "cheap" : "full" };
      },
    };
    const rest = { chain: CHAIN, blocks: [1, 2] as const };
    return {
      cuts: { full: { from: place, capture: rest }, cheap: { from: place, forecast: rest } },
      forecaster: fora(),
      measure: false,
      firstDifference: 0,
      policy,
    };
  };
  const plain: Method = {
    cuts: { full: {} },
    measure: false,
    firstDifference: 0,
    policy: { looks: [], start: () => 0, decide: (memory) => ({ memory, kind: "full" }) },
  };

  test("front and back in two runs are a step; the front is not computed twice", async () => {
    const [cut, whole] = [await run(firstBlock(0), [0, 1]), await run(plain, [0, 1])];
    for (const [i, latent] of cut.latents.entries()) {
      expect(relativeError(latent, whole.latents[i] as Float32Array)).toBeLessThan(1e-5);
    }
    expect(flopsOf(cut) / flopsOf(whole)).toBeCloseTo(1, 2);
  });

  test("may decide differently for images that were looked at together", async () => {
    const method = firstBlock(0);
    const mixed: Method = {
      ...method,
      policy: {
        ...method.policy,
        start: (index) => index,
        decide: (index, { step }) => ({
          memory: index,
          kind: step === 0 || (step + Number(index)) % 2 ? "full" : "cheap",
        }),
      },
    };
    const together = await run(mixed, [0, 1, 2]);
    expect(new Set(together.steps.map(({ images }) => images.join("")))).toEqual(new Set(["012", "02", "1"]));
    for (const [i, latent] of together.latents.entries()) {
      const alone = await run(mixed, [i]);
      expect(relativeError(latent, alone.latents[0] as Float32Array)).toBeLessThan(1e-5);
    }
  });

  test("keeps of a level what its graph has: with the front cut off, the features behind it", async () => {
    const base = firstBlock(0);
    const rest: Method = {
      ...base,
      cuts: {
        full: { from: place, capture: { level: "module" } },
        cheap: { from: place, forecast: { level: "module" } },
      },
      policy: { ...base.policy, decide: (memory, { step }) => ({ memory, kind: step % 2 ? "cheap" : "full" }) },
    };
    const { steps, latents } = await run(rest, [0]);
    expect(steps.map(({ kind }) => kind).slice(0, 3)).toEqual(["full", "cheap", "full"]);
    expect(latents[0]?.every(Number.isFinite)).toBe(true);
  });

  test("costs each image what it costs alone", async () => {
    const method = firstBlock(0);
    const mixed: Method = {
      ...method,
      policy: {
        ...method.policy,
        start: (i) => i,
        decide: (i, { step }) => ({ memory: i, kind: step && i ? "cheap" : "full" }),
      },
    };
    const together = flopsOf(await run(mixed, [0, 1], 4));
    expect(together).toBeCloseTo(flopsOf(await run(mixed, [0], 4)) + flopsOf(await run(mixed, [1], 4)), 0);
  });

  test("sees no number at first, then one for each image, and saves what it does not compute", async () => {
    const seen: (number | undefined)[][] = [];
    const { steps } = await run(firstBlock(0.2, seen), [0, 1]);
    expect(seen.slice(0, 2)).toEqual([
      [0, undefined],
      [0, undefined],
    ]);
    expect(seen.slice(2).every(([, change]) => change !== undefined && change > 0)).toBe(true);
    const kinds = new Set(steps.map(({ kind }) => kind));
    expect(kinds).toEqual(new Set(["full", "cheap"]));
    const [full, cheap] = ["full", "cheap"].map((kind) => steps.find((step) => step.kind === kind));
    expect((cheap?.flops ?? 0) / (cheap?.images.length ?? 1)).toBeLessThan(
      (full?.flops ?? 0) / (full?.images.length ?? 1),
    );
  });
});

test("a step that is judged bad is run again as another kind, for the image that it is bad for", async () => {
  const method = byPattern(fora(), ["Ffff", "Ffff"]);
  const judged: Method = {
    ...method,
    policy: {
      ...method.policy,
      start: (index) => ({ pattern: "Ffff", index }),
      decide: (memory, { step }) => ({ memory, kind: step === 0 ? "full" : "forecast" }),
      judge(memory, { step }, { kind, finite }) {
        expect(finite).toBe(true);
        const bad = step === 2 && kind === "forecast" && (memory as { index: number }).index === 1;
        return bad ? { memory, redo: "full" } : { memory };
      },
    },
  };
  const { steps, latents } = await run(judged, [0, 1], 4);
  const shown = steps.map(
    ({ step, kind, images, rejected }) => `${step} ${kind} ${images.join("")}${rejected ? " no" : ""}`,
  );
  expect(shown).toEqual([
    "0 full 01",
    "1 forecast 01",
    "2 forecast 0",
    "2 forecast 1 no",
    "2 full 1",
    "3 forecast 0",
    "3 forecast 1",
  ]);
  const wanted = await run(byPattern(fora(), ["Ffff", "FfFf"]), [1], 4);
  expect(relativeError(latents[1] as Float32Array, wanted.latents[0] as Float32Array)).toBeLessThan(1e-5);
});

test("a policy compares with the last full step that was taken, not with one that was thrown away", async () => {
  const place = { chain: CHAIN, block: 1 };
  const seenBy: (number | undefined)[] = [];
  const judgedSaw: (number | undefined)[] = [];
  const rest = { chain: CHAIN, blocks: [1, 2] as const };
  const method: Method = {
    cuts: { full: { from: place, capture: rest }, cheap: { from: place, forecast: rest }, plain: { from: place } },
    forecaster: fora(),
    measure: false,
    firstDifference: 0,
    policy: {
      looks: [{ cut: { to: place }, of: { stream: "x" }, against: "last full", measure: "l1" }],
      start: () => 0,
      decide(memory, { step }, [change]) {
        seenBy[step] = change;
        return { memory, kind: step === 0 ? "full" : "cheap" };
      },
      judge(memory, { step }, { kind, seen: [change] }) {
        judgedSaw[step] = change;
        return step === 1 && kind === "cheap" ? { memory, redo: "plain" } : { memory };
      },
    },
  };
  const { steps } = await run(method, [0], 3);
  expect(steps.map(({ kind, full }) => [kind, full])).toEqual([
    ["full", true],
    ["cheap", false],
    ["plain", true],
    ["cheap", false],
  ]);
  expect(judgedSaw).toEqual(seenBy);
  // Step 2 is compared with step 1, which was run as a full one in the end: less far away than step 0.
  const never: Method = { ...method, policy: { ...method.policy, judge: (memory) => ({ memory }) } };
  const afterRedo = seenBy[2] as number;
  await run(never, [0], 3);
  expect(afterRedo).toBeLessThan(seenBy[2] as number);
});

describe("a method that does not fit together is refused before its first step", () => {
  const place = { chain: CHAIN, block: 1 };
  const policy: Policy = { looks: [], start: () => 0, decide: (memory) => ({ memory, kind: "full" }) };
  const method = (cuts: Method["cuts"], looks: Policy["looks"] = [], forecaster: Forecaster | undefined = fora()) => ({
    ...{ cuts, measure: false, firstDifference: 0, policy: { ...policy, looks } },
    ...(forecaster && { forecaster }),
  });

  test.each<[string, Method]>([
    ["which no kind of step captures", method({ full: { capture: { level: "stack" } }, cheap: { forecast: level } })],
    ["at which no look ends", method({ full: { from: place } })],
    [
      "to capture what others do",
      method({ full: { capture: level }, back: { from: place, capture: level } }, [
        { cut: { to: place }, of: { stream: "x" }, against: "last full", measure: "l1" },
      ]),
    ],
    [
      "a look reads",
      method({ full: {} }, [{ cut: { to: place }, of: { stream: "y" }, against: "last full", measure: "l1" }]),
    ],
    ["a look reads", method({ full: {} }, [{ cut: {}, of: { mark: "x" }, against: "last full", measure: "l1" }])],
  ])("%s", async (words, bad) => {
    expect(await femoError("E_GRAPH", () => run(bad, [0], 2))).toContain(words);
  });

  test("and a step that captures is not run again", async () => {
    const again: Method = {
      ...method({ full: { capture: level } }),
      policy: { ...policy, judge: (memory) => ({ memory, redo: "full" }) },
    };
    expect(await femoError("E_GRAPH", () => run(again, [0], 2))).toContain('kind "full" cannot run again');
  });
});

test("a graph may forecast some of the features that another captures", async () => {
  const place = { chain: CHAIN, block: 1 };
  const behind = { sites: [`${CHAIN}.1.attn1`, `${CHAIN}.1.ff`] };
  const method = (cuts: Method["cuts"], looks: Policy["looks"]): Method => ({
    ...{ cuts, measure: false, firstDifference: 0 },
    forecaster: taylorSeer(1) as Forecaster,
    policy: { looks, start: () => 0, decide: (memory, { step }) => ({ memory, kind: step < 2 ? "full" : "rest" }) },
  });
  const some = method({ full: { capture: level }, rest: { from: place, forecast: level } }, [
    { cut: { to: place }, of: { stream: "x" }, against: "last full", measure: "l1" },
  ]);
  const byName = method({ full: { capture: behind }, rest: { forecast: behind } }, []);
  const [a, b] = [await run(some, [0], 4), await run(byName, [0], 4)];
  expect(relativeError(a.latents[0] as Float32Array, b.latents[0] as Float32Array)).toBeLessThan(1e-5);
});

test("images with one row and images with two do not share a run, and get what they get alone", async () => {
  const sampler = createSampler(ditScheduler, { numInferenceSteps: 4 });
  const feeds = { class_label: integers([3], [0, 3, 7]) };
  const conditioning = await Conditioning.compute(backbone(), "mixed", sampler.timesteps, { count: 3, feeds });
  const single = { ...image(1), rows: guidanceRows(1, 1, 2) };
  const draw = async (images: readonly ImageStart[]) => {
    const loop = denoise({
      ...{ backbone: backbone(), sampler, conditioning, prefix: "mixed", guidanceChannels: "all" as const },
      method: byPattern(fora(), ["Ffff", "Ffff"]),
      images,
    });
    for (;;) {
      const { done, value } = await loop.next();
      if (done) return (value as Denoised).latents;
    }
  };
  const together = await draw([image(0), single]);
  for (const [i, one] of [image(0), single].entries()) {
    const [alone] = await draw([one]);
    expect(relativeError(together[i] as Float32Array, alone as Float32Array)).toBeLessThan(1e-5);
  }
});

test("what is not finite ends the run at its first step, naming it", async () => {
  const sampler = createSampler(ditScheduler, { numInferenceSteps: 4 });
  const feeds = { class_label: integers([3], [0, 3, 7]) };
  const conditioning = await Conditioning.compute(backbone(), "not-finite", sampler.timesteps, { count: 3, feeds });
  const latent = image(0).latent.slice();
  latent[3] = Number.NaN;
  const steps = denoise({
    ...{ backbone: backbone(), sampler, conditioning, prefix: "not-finite", guidanceChannels: "all" as const },
    method: byPattern(fora(), ["Ffff"]),
    images: [{ ...image(0), latent }],
  });
  expect(await femoError("E_RUNTIME", () => steps.next())).toContain("not finite at step 0 of image 0");
});

test("nothing stays with the engine, however a run ends", async () => {
  const { engine: watched, held } = watchedEngine(engine);
  const { model, checkpoint } = await openModel(engine, `${goldenFolder}/tiny-a`);
  const own = new Backbone(model, checkpoint, new Sessions(watched, Number.POSITIVE_INFINITY));
  const sampler = createSampler(ditScheduler, { numInferenceSteps: 4 });
  const feeds = { class_label: integers([3], [0, 3, 7]) };
  const patterns = ["FFff", "FfFf"];
  const methods = [byPattern(taylorSeer(1) as Forecaster, patterns), correcting(patterns)];
  const runs = methods.flatMap((method) =>
    [1, 3, Number.POSITIVE_INFINITY].map((stopAfter) => ({ method, stopAfter })),
  );
  for (const { method, stopAfter } of runs) {
    const conditioning = await Conditioning.compute(own, "watched", sampler.timesteps, { count: 3, feeds });
    const steps = denoise({
      ...{ backbone: own, sampler, conditioning, prefix: "watched", guidanceChannels: "all" as const },
      method,
      images: [image(0), image(1)],
    });
    let seen = 0;
    for await (const _ of steps) if (++seen === stopAfter) break;
    await conditioning.free();
    expect([...held]).toEqual([]);
  }
});
