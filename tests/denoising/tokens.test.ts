import { describe, expect, test } from "vitest";
import type { DenoisingStep } from "../../src/denoising/records.js";
import { duca, fora, type Method, methodOf, toca } from "../../src/methods/index.js";
import { type CacheOptions, cacheSettings, defaultPresets } from "../../src/methods/settings.js";
import { relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { tinyRuns } from "./tiny-runs.js";

const { backbone, run } = tinyRuns();
const TOKENS = 16;
const WIDTH = 32;
type Run = Awaited<ReturnType<typeof run>>;
const difference = (a: Run, b: Run): number =>
  Math.max(...a.latents.map((latent, i) => relativeError(latent, b.latents[i] as Float32Array)));
const kindsOf = ({ steps }: Run): string => steps.map(({ kind }) => kind[0]).join("");

const built = (options: CacheOptions): Method =>
  methodOf(cacheSettings(options, defaultPresets, backbone().model.levels), backbone().model);
/** Full at the first step, then every third, whatever the ratio is. */
const everyThird = { interval: 3, intervalSchedule: "constant", firstEnhance: 1, ratioSchedule: "flat" } as const;
/** With kinds by image and step; f full, p partial, s skip. */
function byPattern(method: Method, patterns: readonly string[]): Method {
  const kinds: Record<string, string> = { f: "full", p: "partial", s: "skip" };
  return {
    ...method,
    policy: {
      looks: [],
      start: (index) => patterns[index],
      decide: (memory, { step }) => ({ memory, kind: kinds[(memory as string)[step] as string] as string }),
    },
  };
}

describe("ToCa", () => {
  test("with an interval of 1 is no cache", async () => {
    const plain = await run(built("none"), [0, 1]);
    expect(difference(await run(built(toca({ interval: 1 })), [0, 1]), plain)).toBeLessThan(1e-5);
  });

  test("that computes no tokens is FORA", async () => {
    const none = await run(built(toca({ ...everyThird, ratio: 0 })), [0, 1]);
    const reused = await run(built(fora({ interval: 3, firstEnhance: 1 })), [0, 1]);
    expect(kindsOf(none)).toBe("fppfppfp");
    expect(difference(none, reused)).toBeLessThan(1e-5);
    expect(difference(none, await run(built(toca({ ...everyThird, ratio: 0.5 })), [0, 1]))).toBeGreaterThan(1e-4);
  });

  test("that computes all tokens, and attention, is no cache", async () => {
    const method = built(toca({ ...everyThird, ratio: 1 }));
    const { forecast: _, ...partial } = method.cuts.partial as { forecast: unknown };
    const exact = await run({ ...method, cuts: { ...method.cuts, partial } }, [0, 1]);
    expect(difference(exact, await run(built("none"), [0, 1]))).toBeLessThan(1e-5);
    expect(exact.steps.map(({ full }) => full)).toEqual([..."fppfppfp"].map((kind) => kind === "f"));
  });

  test.each(["toca", "duca"] as const)("images get of %s in a batch what they get alone", async (name) => {
    const method = built({ method: name, ...everyThird, ratio: 0.3 });
    const together = await run(method, [0, 1, 2]);
    for (const [i, latent] of together.latents.entries()) {
      const alone = await run(method, [i]);
      expect(relativeError(latent, alone.latents[0] as Float32Array)).toBeLessThan(1e-5);
    }
  });

  test("images that part take their attention, ages and streams with them", async () => {
    const method = byPattern(built(duca({ ratio: 0.3 })), ["fppfppsp", "fppppfsp", "fppspppf"]);
    const together = await run(method, [0, 1, 2]);
    expect(together.steps.some(({ images }) => images.length === 3)).toBe(true);
    for (const [i, latent] of together.latents.entries()) {
      const alone = await run(method, [i]);
      expect(relativeError(latent, alone.latents[0] as Float32Array)).toBeLessThan(1e-5);
    }
  });

  test("costs what its tokens cost: each one of an MLP two products, and what is around them", async () => {
    const flops = async (ratio: number): Promise<number> => {
      const { steps } = await run(built(toca({ ...everyThird, ratio })), [0], 2);
      return (steps[1] as DenoisingStep).flops;
    };
    const [none, quarter, half] = [await flops(0), await flops(0.25), await flops(0.5)];
    expect(half - quarter).toBe(quarter - none);
    const samples = 2 * 2; // guidance rows, and MLPs
    const ofToken = (quarter - none) / samples / (TOKENS / 4);
    const products = 2 * 2 * 4 * WIDTH * WIDTH;
    const biasesAndGelu = (4 + 1 + 4 * 8) * WIDTH;
    const normAndModulation = (8 + 2) * WIDTH;
    expect(ofToken).toBe(products + biasesAndGelu + normAndModulation);
  });

  test("measures how far off what it kept was, chosen tokens included", async () => {
    const errors = async (ratio: number) =>
      (await run(built(toca({ ...everyThird, ratio })), [0])).steps.flatMap(({ forecastError }) => forecastError ?? []);
    const [none, all] = [await errors(0), await errors(1)];
    expect(none).toHaveLength(2);
    // Attention, then the MLP, of either block: all of the MLPs' tokens are one step old instead of three.
    expect(all[0]?.byFeature[1]).toBeLessThan(none[0]?.byFeature[1] as number);
  });

  test("is guarded: once what it kept is too far off, steps are full", async () => {
    const { steps } = await run(built(toca({ ...everyThird, errorBound: 1e-9 })), [0]);
    expect(steps.map(({ kind }) => kind[0]).join("")).toBe("fppfffff");
    expect(steps.flatMap(({ step, guarded }) => (guarded ? [step] : []))).toEqual([4, 5, 7]);
  });

  test("keeps attention and ages beside the features, and counts their bytes", async () => {
    const [kept, reused] = [await run(built(toca(everyThird)), [0]), await run(built(fora()), [0])];
    const massAndAges = 4 * 2 * (2 + 2) * TOKENS;
    expect(kept.stateBytes - reused.stateBytes).toBe(massAndAges);
  });
});

describe("DuCa", () => {
  test("skips every other step between full ones, at the cost of the final layer", async () => {
    const { steps } = await run(built(duca(everyThird)), [0]);
    expect(steps.map(({ kind }) => kind[0]).join("")).toBe("fspfspfs");
    const [full, skip, partial] = steps.map(({ flops }) => flops) as [number, number, number];
    const end = { chain: "transformer_blocks", block: 2 };
    expect(skip).toBe(backbone().cut({ from: end }).network.flops({ batch: 2 }));
    expect(skip).toBeLessThan(partial);
    expect(partial).toBeLessThan(full / 2);
  });

  test("ends a skipped step with the blocks' result of the step before, whichever kind that was", async () => {
    const last = byPattern(built(duca({ ...everyThird, ratio: 1 })), ["fppps"]);
    const method = built(duca({ ...everyThird, ratio: 1 }));
    const kinds = await run(last, [0], 5);
    const [other, same] = [byPattern(method, ["fpfps"]), byPattern(method, ["fppps"])];
    expect(difference(kinds, await run(same, [0], 5))).toBe(0);
    expect(difference(kinds, await run(other, [0], 5))).toBeGreaterThan(1e-5);
  });

  test("with the code's slip renews the first block alone", async () => {
    const { steps } = await run(built(duca({ interval: 3, compat: true })), [0], 50);
    const kinds = new Set(steps.map(({ kind }) => kind));
    expect(kinds).toEqual(new Set(["full", "partial", "skip", "first", "firstSkip"]));
    expect(steps.filter(({ kind }) => kind.startsWith("first")).map(({ step, full }) => [49 - step, full])).toEqual([
      [45, false],
      [32, false],
    ]);
  });
});

test("a method that chooses tokens and says not how many is refused", async () => {
  const { tokens: _, ...method } = built(toca());
  expect(await femoError("E_GRAPH", () => run(method, [0], 2))).toContain("says not how many");
});
