import { describe, expect, test } from "vitest";
import { tinyRuns } from "../../denoising/tiny-runs.js";
import { relativeError } from "../../runtime/helpers.js";
import { femoError } from "../../weights/helpers.js";
import { decided, draw, facts, kindsOf, methodFor, someChanges } from "./helpers.js";

const { backbone, run } = tinyRuns();

const flux = [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861];
/** Section 6 of its specification, with the polynomial as a sum of powers. */
function simulated(
  changes: readonly (number | undefined)[],
  threshold: number,
  coefficients: readonly number[],
): string {
  const p = (r: number) => coefficients.reduce((sum, c, k) => sum + c * r ** (coefficients.length - 1 - k), 0);
  let acc = 0;
  return changes
    .map((r, i) => {
      if (i > 0 && i < changes.length - 1) {
        acc += p(r as number);
        if (acc < threshold) return "c";
      }
      acc = 0;
      return "F";
    })
    .join("");
}

test.each<[string, number, readonly number[] | "flux"]>([
  ["the change itself", 0.3, [1, 0]],
  ["a parabola", 0.2, [4, 0.5, 0.01]],
  ["FLUX's polynomial", 0.8, "flux"],
])("is full where what it adds up comes to the threshold: %s", (_, threshold, coefficients) => {
  for (let seed = 0; seed < 20; seed++) {
    const changes = someChanges(28, seed, 0.1);
    const wanted = simulated(changes, threshold, coefficients === "flux" ? flux : coefficients);
    expect(decided({ method: "teaCache", threshold, coefficients }, changes)).toBe(wanted);
    expect(wanted).toContain("c");
  }
});

test("FLUX's polynomial bounds how long nothing is computed, even where nothing changes", () => {
  // p(0) = 0.264: three steps come to 0.79, the fourth to 1.06.
  expect(decided({ method: "teaCache", threshold: 0.8, coefficients: "flux" }, new Array(10).fill(0))).toBe(
    "FcccFcccFF",
  );
});

test("a step that has to be full is, and the sum begins anew", () => {
  const changes = new Array(9).fill(0.1);
  expect(decided({ method: "teaCache", threshold: 0.35 }, changes)).toBe("FcccFcccF");
  expect(decided({ method: "teaCache", threshold: 0.35 }, changes, [2])).toBe("FcFcccFcF");
});

test("a fit below zero counts as no change, and what is no number as a large one", () => {
  expect(decided({ method: "teaCache", threshold: 0.5, coefficients: [1, -1] }, [1, 0, 0, 1.6, 0])).toBe("FccFF");
  expect(decided({ method: "teaCache", threshold: 0.5 }, [1, Number.NaN, 0, 0])).toBe("FFcF");
});

test("a model without the mark is refused", async () => {
  const message = await femoError("E_OPTION", () => methodFor("teaCache", { ...facts, marks: [] }));
  expect(message).toContain('"modulated", found none');
});

describe("on a model", () => {
  test("each image's steps follow from what was seen of it, and it gets what it gets alone", async () => {
    const threshold = 0.25;
    const method = methodFor({ method: "teaCache", threshold }, backbone().model);
    const together = await draw(run, method, [0, 1, 2], 12);
    const patterns = together.decisions.map((decisions, i) => {
      const found = kindsOf(together.steps, i).map((kind) => (kind === "full" ? "F" : "c"));
      expect(found.join("")).toBe(
        simulated(
          decisions.map(({ seen }) => seen),
          threshold,
          [1, 0],
        ),
      );
      return found.join("");
    });
    expect(new Set(patterns.join(""))).toEqual(new Set("Fc"));
    for (const i of [0, 1, 2]) {
      const alone = await draw(run, method, [i], 12);
      expect(relativeError(together.latents[i] as Float32Array, alone.latents[0] as Float32Array)).toBeLessThan(1e-5);
    }
  });

  test("at a threshold of 0 it is an uncached run", async () => {
    const [found, wanted] = [
      await draw(run, methodFor({ method: "teaCache", threshold: 0 }, backbone().model), [0], 6),
      await draw(run, methodFor("none", backbone().model), [0], 6),
    ];
    expect(found.latents).toEqual(wanted.latents);
  });
});
