import { describe, expect, test } from "vitest";
import {
  createSampler,
  ditScheduler,
  flowEuler,
  flowMultistep,
  type MultistepSolver,
} from "../../src/samplers/index.js";
import { fluxScheduler } from "./flow-helpers.js";
import { fakeModel, noise, relativeError, walk } from "./helpers.js";

const timesteps = [1, 0.9, 0.55, 0.3, 0.02];
const unitTable = (n: number) => Array.from({ length: n }, (_, i) => [...new Array(i).fill(0), 1]);
/** Any rows that sum to 1. */
const table = timesteps.map((_, n) => {
  const row = Array.from({ length: n + 1 }, (_, j) => Math.sin(3 * n + 2 * j));
  row[n] = 1 - row.slice(0, n).reduce((a, b) => a + b, 0);
  return row;
});
const predictionType = "flow_prediction";

test.each([
  ["of its timesteps, also from mere noise", undefined],
  ["of its own", [0.98, 0.91, 0.5, 0.31, 0.05]],
])("the definition in float64, at the levels %s", (_, levelTimesteps) => {
  const levels = levelTimesteps ?? timesteps;
  const first = noise(1, 24);
  let x = Array.from(first);
  const history: number[][] = [];
  levels.forEach((sigma, n) => {
    const v = fakeModel(Float32Array.from(x), n);
    history.push(x.map((value, k) => value - sigma * (v[k] as number)));
    const r = (levels[n + 1] ?? 0) / sigma;
    x = x.map((value, k) => {
      const mean = (table[n] as number[]).reduce((sum, c, j) => sum + c * (history[j]?.[k] as number), 0);
      return r * value + (1 - r) * mean;
    });
  });
  const found = walk(flowMultistep({ predictionType, timesteps, levelTimesteps, table }), first, fakeModel).at(
    -1,
  )?.latent;
  expect(relativeError(found as Float32Array, x)).toBeLessThan(1e-5 * Math.max(...x.map(Math.abs), 1));
});

test.each([1000, 500])("with a table of ones it is Euler's method, T = %i", (numTrainTimesteps) => {
  const config = { predictionType, numTrainTimesteps, shift: 2, timestepSpacing: "trailing" } as const;
  const euler = flowEuler(config, { numInferenceSteps: 9 });
  const solver = flowMultistep({ predictionType, numTrainTimesteps, timesteps: euler.timesteps, table: unitTable(9) });
  const wanted = walk(euler, noise(1, 16), fakeModel);
  walk(solver, noise(1, 16), fakeModel).forEach(({ latent }, i) => {
    expect(relativeError(latent, wanted[i]?.latent as Float32Array)).toBeLessThan(1e-5);
  });
});

describe("as a request's sampler", () => {
  const solver: MultistepSolver = { sampler: "multistep", timesteps: [1, 0.5, 0.25], table: unitTable(3) };
  const create = (change: object, choice: object = {}) =>
    createSampler(fluxScheduler, {
      sampler: { ...solver, ...change },
      numInferenceSteps: 3,
      imageTokens: 64,
      ...choice,
    });

  test("its timesteps are the noise levels, which nothing shifts", () => {
    const { name, spacing, timesteps, leaps } = create({});
    expect([name, spacing, timesteps]).toEqual(["multistep", "given", solver.timesteps]);
    expect([...leaps.map(({ from }) => from.noise), leaps.at(-1)?.to.noise]).toEqual([1, 0.5, 0.25, 0]);
  });

  test.each<[object, RegExp]>([
    [{ timesteps: [900, 400, 50] }, /timesteps: expected numbers from 1 to above 0, as the model is a flow, found 900/],
    [{ timesteps: [1, 0.5, 0] }, /timesteps: expected numbers from 1 to above 0, .* found 0/],
    [{ timesteps: [1.5, 0.5, 0.1] }, /timesteps.0: expected a whole number, or, of a flow, one from 0 to 1, found 1.5/],
    [{ timesteps: [1, 0.5, 0.5] }, /timesteps.2: expected a number below the one before, 0.5, found 0.5/],
    [{ levelTimesteps: [1, 0.5, 0] }, /levelTimesteps: expected numbers from 1 to above 0, .* found 0/],
    [{ finalAlphaBar: 0.9 }, /finalAlphaBar: expected none, as the model is a flow, found 0.9/],
  ])("%j is refused by name", (change, message) => {
    expect(() => create(change)).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(message) }),
    );
  });

  test("levels beside its own are refused, and a flow's solver for a diffusion", () => {
    expect(() => create({}, { sigmas: [1, 0.5, 0.2] })).toThrow(/sigmas: expected none beside the timesteps/);
    expect(() => createSampler(ditScheduler, { sampler: solver, numInferenceSteps: 3 })).toThrow(
      /timesteps: expected whole numbers from 0 to 999, found 0.5/,
    );
  });
});
