import { describe, expect, test } from "vitest";
import {
  createSampler,
  ddim,
  ditScheduler,
  dpmSolver,
  type MultistepConfig,
  type MultistepSolver,
  multistep,
  type SamplerState,
} from "../../src/samplers/index.js";
import { alphaBar, fakeModel, noise, relativeError, walk } from "./helpers.js";

const types = ["epsilon", "v_prediction", "sample"] as const;
const timesteps = [980, 700, 420, 300, 120, 10];
/** Any rows that sum to 1, with negative weights too. */
const table = timesteps.map((_, n) => {
  const row = Array.from({ length: n + 1 }, (_, j) => Math.sin(3 * n + 2 * j));
  row[n] = 1 - row.slice(0, n).reduce((a, b) => a + b, 0);
  return row;
});
/** DDIM's table, and that of DPM-Solver++(2M) for steps h of λ. */
const unitTable = (n: number) => Array.from({ length: n }, (_, i) => [...new Array(i).fill(0), 1]);

describe("against the definition in float64", () => {
  /** y and D as they are written, from y = x/√ᾱ and s = √(1 − ᾱ)/√ᾱ. */
  function reference(type: (typeof types)[number], first: Float32Array, bars: readonly number[]): number[] {
    let x = Array.from(first);
    const history: number[][] = [];
    table.forEach((row, n) => {
      const [bar, next] = bars.slice(n, n + 2) as [number, number];
      const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
      const m = fakeModel(Float32Array.from(x), n);
      history.push(
        x.map((v, k) => {
          const out = m[k] as number;
          return { epsilon: (v - b * out) / a, v_prediction: a * v - b * out, sample: out }[type];
        }),
      );
      const ratio = Math.sqrt((1 - next) / next) / (b / a);
      x = x.map((v, k) => {
        const mean = row.reduce((sum, c, j) => sum + c * (history[j]?.[k] as number), 0);
        return Math.sqrt(next) * (ratio * (v / a) + (1 - ratio) * mean);
      });
    });
    return x;
  }

  const drawn = (config: Omit<MultistepConfig, "timesteps" | "table">) =>
    walk(multistep({ timesteps, table, ...config }), noise(1, 24), fakeModel).at(-1)?.latent as Float32Array;
  const scaleOf = (values: readonly number[]) => Math.max(1, ...values.map(Math.abs));

  test.each(types.flatMap((type) => [1, 0.9999].map((end) => [type, end] as const)))("%s, to ᾱ = %d", (type, end) => {
    const wanted = reference(type, noise(1, 24), [...timesteps.map(alphaBar), end]);
    const found = drawn({ finalAlphaBar: end, predictionType: type });
    expect(relativeError(found, wanted)).toBeLessThan(1e-4 * scaleOf(wanted));
  });

  test.each(types)("%s, at levels that are not those of its timesteps", (predictionType) => {
    const levelTimesteps = [990.25, 700, 410.5, 310.75, 119, 4.5];
    // σ is the geometric mean of its neighbours' halfway between.
    const sigma = (t: number) => Math.sqrt((1 - alphaBar(t)) / alphaBar(t));
    const between = (t: number) => sigma(Math.floor(t)) ** (1 - (t % 1)) * sigma(Math.ceil(t)) ** (t % 1);
    const bars = levelTimesteps.map((t) => 1 / (1 + between(t) ** 2));
    const wanted = reference(predictionType, noise(1, 24), [...bars, 1]);
    expect(relativeError(drawn({ levelTimesteps, predictionType }), wanted)).toBeLessThan(1e-4 * scaleOf(wanted));
    expect(drawn({ levelTimesteps: timesteps, predictionType })).toEqual(drawn({ predictionType }));
  });
});

describe("samplers that it can be", () => {
  test.each(types)("with a table of ones it is DDIM, %s", (predictionType) => {
    const reference = ddim({ ...ditScheduler, predictionType, numInferenceSteps: 9 });
    const sampler = multistep({ timesteps: reference.timesteps, table: unitTable(9), predictionType });
    expect(sampler.leaps).toEqual(reference.leaps);
    const expected = walk(reference, noise(1, 16), fakeModel);
    walk(sampler, noise(1, 16), fakeModel).forEach(({ latent }, i) => {
      expect(relativeError(latent, expected[i]?.latent as Float32Array)).toBeLessThan(1e-5);
    });
  });

  test("with rows 1 + h/2h₋ and −h/2h₋ it is DPM-Solver++(2M)", () => {
    const reference = dpmSolver({ numInferenceSteps: 12, timestepSpacing: "trailing" });
    const lambdas = reference.timesteps.map((t) => Math.log(alphaBar(t) / (1 - alphaBar(t))) / 2);
    const rows = unitTable(12).map((row, i) => {
      if (i === 0 || i === 11) return row;
      const [before, here, there] = lambdas.slice(i - 1, i + 2) as [number, number, number];
      const half = (there - here) / (here - before) / 2;
      return [...new Array(i - 1).fill(0), -half, 1 + half];
    });
    const expected = walk(reference, noise(1, 16), fakeModel).at(-1)?.latent as Float32Array;
    const sampler = multistep({ timesteps: reference.timesteps, table: rows });
    const found = walk(sampler, noise(1, 16), fakeModel).at(-1)?.latent as Float32Array;
    expect(relativeError(found, expected)).toBeLessThan(1e-4);
  });
});

test("a chain that ends without signal begins with any x₀, and steps stay finite to the last", () => {
  const config = { timesteps: [999, 500, 0], table: unitTable(3), rescaleBetasZeroSnr: true };
  const sampler = multistep({ ...config, predictionType: "v_prediction" });
  const states = walk(sampler, noise(1, 8), fakeModel);
  expect(states.every(({ latent }) => latent.every(Number.isFinite))).toBe(true);
  expect(() => multistep(config)).toThrow(expect.objectContaining({ code: "E_OPTION" }));
});

describe("walking again", () => {
  const sampler = multistep({ timesteps, table });
  const states = walk(sampler, noise(1, 32), fakeModel);

  test("every step from its stored state gives the same bytes, in any order, and changes nothing", () => {
    for (const i of [5, 1, 3, 0, 4, 1]) {
      const state = structuredClone(states[i] as SamplerState);
      expect(sampler.step(i, state, fakeModel(state.latent, i))).toStrictEqual(states[i + 1]);
      expect(state).toStrictEqual(states[i]);
    }
  });

  test("the history is x₀ of all steps so far, newest first", () => {
    const x0 = [2, 1, 0].map((i) => {
      const { latent } = states[i] as SamplerState;
      return sampler.denoised(i, latent, fakeModel(latent, i));
    });
    expect(states[3]?.history).toEqual(x0);
  });

  test("the oldest x₀ that is known stands in for those before: alone, a step is DDIM's", () => {
    const { latent } = states[3] as SamplerState;
    const m = fakeModel(latent, 3);
    const plain = multistep({ timesteps, table: unitTable(6) });
    expect(relativeError(sampler.step(3, { latent }, m).latent, plain.step(3, { latent }, m).latent)).toBeLessThan(
      1e-6,
    );
    const newest = states[3]?.history?.[0] as Float32Array;
    const known = sampler.step(3, { latent, history: [newest] }, m).latent;
    expect(known).toEqual(sampler.step(3, { latent, history: [newest, newest, newest] }, m).latent);
  });

  test("a history that does not fit is refused", () => {
    const [latent, short] = [new Float32Array(4), new Float32Array(2)];
    const refused = (i: number, history: Float32Array[]) =>
      expect(() => sampler.step(i, { latent, history }, latent)).toThrow(
        expect.objectContaining({ code: "E_OPTION", message: expect.stringContaining(`a history of at most ${i}`) }),
      );
    refused(0, [latent]);
    refused(1, [short]);
  });
});

describe("as a request's sampler", () => {
  const solver: MultistepSolver = { sampler: "multistep", timesteps: [900, 400, 50], table: unitTable(3) };
  const create = (change: object, numInferenceSteps = 3) =>
    createSampler({ ...ditScheduler, betaEnd: 0.01 }, { sampler: { ...solver, ...change }, numInferenceSteps });

  test("it runs on the model's training chain", () => {
    const { timesteps, table } = solver;
    const { leaps, spacing, name } = create({});
    expect([name, spacing]).toEqual(["multistep", "given"]);
    expect(leaps).toEqual(multistep({ timesteps, table, betaEnd: 0.01 }).leaps);
    expect(create({ finalAlphaBar: 0.9999 }).leaps.at(-1)?.to.signalVariance).toBe(0.9999);
  });

  test.each<[object, RegExp]>([
    [{ timesteps: undefined }, /sampler: timesteps: /],
    [{ timesteps: [900, 400, "50"] }, /sampler: timesteps.2: /],
    [{ timesteps: [900, 400.5, 50] }, /sampler: timesteps.1: /],
    [{ timesteps: [900, 400, 0.5] }, /timesteps: expected whole numbers from 0 to 999, found 0.5/],
    [{ timesteps: [900, 400, 400] }, /timesteps.2: expected a number below the one before, 400, found 400/],
    [{ timesteps: [1000, 400, 50] }, /timesteps: expected whole numbers from 0 to 999, found 1000/],
    [{ timesteps: [], table: [] }, /sampler: timesteps: /],
    [{ timesteps: [900, 400] }, /table: expected 2 rows, one for each timestep, found 3/],
    [{ table: [[1], [0, 1], [0, 1]] }, /table.2: expected 3 weights.* found 2/],
    [{ table: [[1], [0.5, 0.50001], [0, 0, 1]] }, /table.1: expected weights that sum to 1, found a sum of 1.00001/],
    [{ table: [[1], [Number.NaN, 1], [0, 0, 1]] }, /sampler: table.1.0: /],
    [{ levelTimesteps: [900, 400] }, /levelTimesteps: expected 3, one for each timestep, found 2/],
    [{ levelTimesteps: [900, 900, 50] }, /levelTimesteps.1: expected a number below the one before, 900, found 900/],
    [{ levelTimesteps: [999.5, 400, 50] }, /levelTimesteps: expected numbers from 0 to 999, found 999.5/],
    [{ levelTimesteps: [900, 400, -1] }, /sampler: levelTimesteps.2: /],
    [{ finalAlphaBar: 1.5 }, /sampler: finalAlphaBar: /],
    [{ finalAlphaBar: 0.5 }, /finalAlphaBar: expected at least that of the last timestep, 0\.9\d+, found 0.5/],
    [{ tabel: [] }, /sampler: .*tabel/],
    [{ sampler: "ddim" }, /sampler: timesteps: ddim has no such setting; there are clipSample, /],
    [{ sampler: "euler" }, /sampler: timesteps: euler has no such setting; there are stepsOffset, /],
  ])("%j is refused by name", (change, message) => {
    expect(() => create(change)).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(message) }),
    );
  });

  test("sums may be off by what writing them with seven digits loses", () => {
    expect(create({ table: [[1], [0.3333333, 0.6666666], [0, 0, 1]] }).timesteps).toHaveLength(3);
  });

  test("another number of steps, or a spacing, is refused", () => {
    expect(() => create({}, 4)).toThrow(/numInferenceSteps: expected 3, one for each timestep .* found 4/);
    expect(() =>
      createSampler(ditScheduler, { sampler: solver, numInferenceSteps: 3, timestepSpacing: "dit" }),
    ).toThrow(/timestepSpacing: expected none .* found dit/);
  });

  test("its name alone is not enough", () => {
    expect(() => multistep({ betaEnd: 0.01 } as MultistepConfig)).toThrow(/sampler: timesteps: .*table: /);
  });
});
