import { expect, test } from "vitest";
import { crowdedSteps } from "../../../src/methods/schedules/index.js";
import { femoError } from "../../weights/helpers.js";

// Computed with NumPy's complex powers; the first is the schedule of DeepCache's script for Stable Diffusion 1.5.
test.each([
  [50, 10, 15, 1.4, [0, 5, 9, 13, 17, 21, 26, 31, 37, 43]],
  [50, 17, 15, 1.4, [0, 3, 6, 8, 11, 13, 15, 17, 20, 22, 25, 28, 32, 35, 38, 42, 46]],
  [50, 8, 15, 1.4, [0, 6, 11, 15, 21, 27, 34, 42]],
  [20, 7, 6, 1.2, [0, 3, 6, 7, 10, 13, 16]],
])("%i steps, %i full, around %i, power %f", (numSteps, count, center, power, steps) => {
  expect(crowdedSteps({ numSteps, count, center, power })).toEqual(steps);
});

test("are as many as asked for and begin with the first, or there is an error", async () => {
  for (const numSteps of [4, 7, 20, 50]) {
    for (let count = 1; count <= numSteps; count++) {
      for (const center of [0, 1, Math.floor(numSteps / 3), numSteps - 1]) {
        const make = () => crowdedSteps({ numSteps, count, center, power: 1.4 });
        let steps: number[];
        try {
          steps = make();
        } catch {
          expect(await femoError("E_OPTION", make)).toContain("uniform");
          continue;
        }
        expect(steps).toHaveLength(count);
        expect(steps[0]).toBe(0);
        expect(new Set(steps).size).toBe(count);
        expect(steps.every((step) => Number.isInteger(step) && step >= 0 && step < numSteps)).toBe(true);
      }
    }
  }
});
