import { describe, expect, test } from "vitest";
import { methodOf, plannedKinds, tokenCount } from "../../src/methods/index.js";
import { type CacheOptions, cacheSettings, defaultPresets } from "../../src/methods/settings.js";
import { dit, ditXL2 } from "../../src/models/dit.js";
import { flux } from "../../src/models/flux.js";
import { fluxDev } from "../../src/models/flux-config.js";
import type { Model } from "../../src/tracing/index.js";

const NUM_STEPS = 50;
const built = (options: CacheOptions, model: Model = dit(ditXL2)) =>
  methodOf(cacheSettings(options, defaultPresets, model.levels), model);
const kindsOf = (options: CacheOptions, model?: Model): string[] =>
  plannedKinds(built(options, model), NUM_STEPS) as string[];
/** Indices as DiT counts them, downwards. */
const indexes = (kinds: readonly string[], kind: string): number[] =>
  kinds.flatMap((own, step) => (own === kind ? [NUM_STEPS - 1 - step] : []));

describe("when steps are full", () => {
  const wholeOfThree = [49, 44, 40, 36, 30, 27, 24, 21, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0];

  test("ToCa at N = 3, as its code has it: two are full in their first layer alone", () => {
    const kinds = kindsOf({ method: "toca", interval: 3, compat: true });
    expect(indexes(kinds, "full")).toEqual(wholeOfThree);
    expect(indexes(kinds, "first")).toEqual([45, 32]);
  });

  test("and without that slip, these two are full and nothing else changes", () => {
    const kinds = kindsOf({ method: "toca", interval: 3 });
    expect(indexes(kinds, "full").toSorted((a, b) => a - b)).toEqual(
      [...wholeOfThree, 45, 32].toSorted((a, b) => a - b),
    );
    expect(new Set(kinds)).toEqual(new Set(["full", "partial"]));
  });

  test("DuCa computes tokens where the index leaves an odd rest, here of 5 and in step 45 of 4, and skips elsewhere", () => {
    const kinds = kindsOf({ method: "duca", interval: 3, compat: true });
    expect(kinds.slice(0, 6)).toEqual(["full", "partial", "skip", "partial", "first", "full"]);
    expect(indexes(kinds, "firstSkip")).toEqual([32]);
  });

  test("on FLUX every so many after the first three, and DuCa skips the first step after each", () => {
    const options = { interval: 4, intervalSchedule: "constant" } as const;
    const model = flux(fluxDev);
    expect(
      kindsOf({ method: "toca", ...options }, model)
        .slice(0, 8)
        .join(" "),
    ).toBe("full full full partial partial partial full partial");
    expect(
      kindsOf({ method: "duca", ...options }, model)
        .slice(2, 8)
        .join(" "),
    ).toBe("full skip partial skip full skip");
  });

  test.each(["toca", "constant"] as const)("at an interval of 1 all are, by the schedule %s", (intervalSchedule) => {
    for (const compat of [false, true]) {
      expect(new Set(kindsOf({ method: "duca", interval: 1, intervalSchedule, compat }))).toEqual(new Set(["full"]));
    }
  });

  test("a step that has to be full is, and the interval goes on from there", () => {
    const { policy } = built({ method: "duca", interval: 3, compat: true });
    const at = { step: 1, numSteps: NUM_STEPS };
    const own = policy.decide(policy.start(0), { ...at, due: false }, []);
    const due = policy.decide(policy.start(0), { ...at, due: true }, []);
    expect(due.kind).toBe("full");
    expect(due.memory).not.toEqual(own.memory);
  });
});

describe("how many tokens are computed", () => {
  const ratio = (options: CacheOptions, step: number, block: number, chain = "transformer_blocks", model?: Model) =>
    built(options, model).tokens?.ratio({ step, numSteps: NUM_STEPS }, { chain, block }) as number;

  test("ddim50: none early, more towards the end and in later layers", () => {
    const toca = { method: "toca", ratio: 0.07 } as const;
    expect(ratio(toca, 1, 3)).toBeLessThan(0);
    expect(ratio(toca, 49, 0)).toBeCloseTo(0.07 * 0.8 * 3 * 2.5, 12);
    expect(ratio(toca, 49, 27)).toBeCloseTo(0.07 * 1.2 * 3 * 2.5, 12);
    expect(ratio(toca, 29, 27)).toBeCloseTo(0.07 * 1.2 * (3 - 80 / 50) * 2.5, 12);
  });

  test("ddpm250: fewer in later layers", () => {
    const toca = { method: "toca", ratio: 0.1, ratioSchedule: "ddpm250" } as const;
    expect(ratio(toca, 49, 0)).toBeCloseTo(0.1 * 1.8 * 1.4 * 2.5, 12);
    expect(ratio(toca, 49, 27)).toBeCloseTo(0.1 * 0.2 * 1.4 * 2.5, 12);
  });

  test("flux: four times as many in single blocks, and blocks count from 0 in either chain", () => {
    const toca = { method: "toca", ratio: 0.1, ratioSchedule: "flux" } as const;
    const model = flux(fluxDev);
    expect(ratio(toca, 9, 0, "transformer_blocks", model)).toBeCloseTo(0.1 * 1.5 * 0.4, 12);
    expect(ratio(toca, 9, 37, "single_transformer_blocks", model)).toBeCloseTo(0.1 * (1.5 - 37 / 27) * 1.6, 12);
  });

  test("flat: the ratio itself", () => {
    expect(ratio({ method: "duca", ratio: 0.2, ratioSchedule: "flat" }, 7, 3)).toBe(0.2);
  });

  test("none while the share is negative, and never more than there are", () => {
    expect([-1, 0.1, 1, 7].map((share) => tokenCount(share, 256))).toEqual([0, 25, 256, 256]);
  });
});
