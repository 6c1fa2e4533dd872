import { expect, test } from "vitest";
import type { CacheOptions } from "../../../src/methods/index.js";
import { femoError } from "../../weights/helpers.js";
import { random } from "../forecasts/replay.js";
import { decided, methodFor } from "./helpers.js";

type Fields = Omit<Extract<Exclude<CacheOptions, string>, { method: "magCache" }>, "method">;
const kinds = (numSteps: number, fields: Fields, due: number[] = []): string =>
  decided({ method: "magCache", ...fields }, new Array(numSteps).fill(0), due);

interface Simulation {
  gamma: readonly number[];
  threshold: number;
  K: number;
  retention: number;
  never?: number;
}
/** Section 10 of its specification, step by step. */
function simulated(numSteps: number, { gamma, threshold, K, retention, never = -1 }: Simulation): string {
  let [a, n, e, out] = [1, 0, 0, ""];
  for (let i = 0; i < numSteps; i++) {
    let skip = false;
    if (i >= Math.floor(retention * numSteps + 0.5)) {
      a *= gamma[Math.round((i * (gamma.length - 1)) / (numSteps - 1))] as number;
      n += 1;
      e += Math.abs(1 - a);
      skip = e <= threshold && n <= K && i > 0 && Math.round((i * 27) / (numSteps - 1)) !== never;
    }
    if (!skip) [a, n, e] = [1, 0, 0];
    out += skip ? "c" : "F";
  }
  return out;
}

test.each([20, 28, 50])("of %i steps it skips what keeps the error of the magnitude small", (numSteps) => {
  for (let seed = 0; seed < 20; seed++) {
    const next = random(seed);
    const ratios = [1, ...Array.from({ length: 27 }, () => 1 + 0.05 * next())];
    const [threshold, maxSkipSteps, retentionRatio] = [0.1 + 0.08 * next(), 4, 0.2 + 0.2 * next()];
    const wanted = simulated(numSteps, { gamma: ratios, threshold, K: maxSkipSteps, retention: retentionRatio });
    expect(kinds(numSteps, { ratios, threshold, maxSkipSteps, retentionRatio })).toBe(wanted);
  }
});

test("FLUX's own rule keeps the step at index 11 of 28", () => {
  const fields = { ratios: "flux", threshold: 0.24, maxSkipSteps: 5, retentionRatio: 0.1 } as const;
  const [own, original] = [kinds(28, fields), kinds(28, { ...fields, compat: true })];
  expect(original[11]).toBe("F");
  expect(own[11]).toBe("c");
  expect(original.slice(0, 11)).toBe(own.slice(0, 11));
});

test("the number of steps in a row is bounded, a step that has to be full is, and a threshold of 0 skips none", () => {
  const still = { ratios: [1, 1], threshold: 0.1, retentionRatio: 0 };
  expect(kinds(9, { ...still, maxSkipSteps: 3 })).toBe("FcccFcccF");
  expect(kinds(9, { ...still, maxSkipSteps: 3 }, [2])).toBe("FcFcccFcc");
  expect(kinds(9, { ...still, maxSkipSteps: 0 })).toBe("FFFFFFFFF");
  expect(kinds(9, { ...still, threshold: 0 })).toBe("FFFFFFFFF");
  expect(kinds(1, still)).toBe("F");
});

test("a model without ratios of its own asks for a calibration", async () => {
  expect(await femoError("E_OPTION", () => methodFor("magCache"))).toContain("femo calibrate magCache");
});
