import { describe, expect, test } from "vitest";
import {
  createSampler,
  type DeisConfig,
  ddim,
  deis,
  ditScheduler,
  type FlowConfig,
  flowDeis,
  flowEuler,
  type SamplerState,
  type SchedulerConfig,
  timestepSpacings,
} from "../../src/samplers/index.js";
import { fluxScheduler } from "./flow-helpers.js";
import { alphaBar, fakeModel, noise, relativeError, walk } from "./helpers.js";

describe("order 1 is DDIM", () => {
  const models = ["epsilon", "v_prediction", "sample"] as const;
  test.each(models.flatMap((type) => [3, 10, 50].map((n) => [type, n] as const)))("%s, %i steps", (type, n) => {
    const config = { ...ditScheduler, predictionType: type, numInferenceSteps: n };
    const solver = deis({ ...config, solverOrder: 1, finalSigmasType: "zero" });
    const reference = ddim(config);
    expect([solver.timesteps, solver.leaps]).toEqual([reference.timesteps, reference.leaps]);
    const expected = walk(reference, noise(1, 16), fakeModel);
    walk(solver, noise(1, 16), fakeModel).forEach(({ latent }, i) => {
      expect(relativeError(latent, expected[i]?.latent as Float32Array)).toBeLessThan(1e-5);
    });
  });
});

/** In y = x/signal and ρ = noise/signal, dy = ε dρ: where ε is a polynomial in log ρ, so is y up to a factor of ρ. */
describe.each([
  [1, 0],
  [2, 1],
  [3, 2],
] as const)("order %i is exact where ε is of degree %i in log ρ, and no higher", (solverOrder, degree) => {
  /** ∫ log(ρ)^p dρ. */
  const integral = (p: number, rho: number): number =>
    p === 0 ? rho : rho * Math.log(rho) ** p - p * integral(p - 1, rho);

  /** The largest of a step from where the solution is, relative to what it adds up. */
  const errorOf = (config: Partial<DeisConfig>, p: number): number => {
    const n = 20;
    const sampler = deis({ solverOrder, lowerOrderFinal: false, ...config, numInferenceSteps: n });
    const rho = sampler.leaps.map(({ from }) => from.noise / from.signal);
    const eps = rho.map((value) => Float32Array.of(Math.log(value) ** p));
    const solution = rho.map((value) => integral(p, value) - integral(p, rho[0] as number));
    const errors = Array.from({ length: n - solverOrder }, (_, k) => {
      const i = k + solverOrder - 1;
      const [from, to] = sampler.leaps.slice(i, i + 2).map((leap) => leap.from.signal) as [number, number];
      const [now, next] = solution.slice(i, i + 2) as [number, number];
      const history = eps.slice(0, i).reverse();
      const { latent } = sampler.step(i, { latent: Float32Array.of(from * now), history }, eps[i] as Float32Array);
      return Math.abs((latent[0] as number) - to * next) / (to * (Math.abs(now) + Math.abs(next)));
    });
    return Math.max(...errors);
  };

  test.each(["trailing", "lambda", "leading"] as const)("%s spacing", (timestepSpacing) => {
    expect(errorOf({ timestepSpacing }, degree)).toBeLessThan(1e-6);
    expect(errorOf({ timestepSpacing }, degree + 1)).toBeGreaterThan(1e-4);
  });
});

test("it lands on the noise of timestep 0, as diffusers' class does, or on none", () => {
  const end = (config: Partial<DeisConfig>) => deis({ numInferenceSteps: 5, ...config }).leaps.at(-1)?.to;
  expect(end({})?.noise).toBeCloseTo(Math.sqrt(1 - alphaBar(0)), 9);
  expect(end({ finalSigmasType: "zero" })?.noise).toBe(0);
  const carried = createSampler(
    { sampler: "unipc", finalSigmasType: "zero" },
    { sampler: "deis", numInferenceSteps: 5 },
  );
  expect(carried.leaps.at(-1)?.to).toEqual(end({}));
});

test("steps are finite to the last, also where it has no length or there is no signal", () => {
  const spacings = timestepSpacings.map((timestepSpacing) => ({ timestepSpacing }));
  const levels = ["useKarrasSigmas", "useExponentialSigmas", "useBetaSigmas"].map((name) => ({ [name]: true }));
  for (const spacing of [...spacings, ...levels]) {
    for (const finalSigmasType of ["zero", "sigma_min"] as const) {
      for (const rescaleBetasZeroSnr of [false, true]) {
        for (const numInferenceSteps of [1, 2, 10, 20]) {
          const own = { ...spacing, finalSigmasType, rescaleBetasZeroSnr, lowerOrderFinal: false };
          const sampler = deis({ ...own, numInferenceSteps, solverOrder: 3, predictionType: "v_prediction" });
          const { latent } = walk(sampler, noise(1, 8), fakeModel).at(-1) as SamplerState;
          expect([own, latent.every(Number.isFinite)]).toEqual([own, true]);
        }
      }
    }
  }
});

describe("of a flow", () => {
  test("order 1 is Euler's method, from mere noise too", () => {
    const config: FlowConfig = { predictionType: "flow_prediction", shift: 2, timestepSpacing: "trailing" };
    const chosen = { numInferenceSteps: 12 };
    const [solver, euler] = [flowDeis({ ...config, solverOrder: 1 }, chosen), flowEuler(config, chosen)];
    expect([solver.timesteps, solver.leaps]).toEqual([euler.timesteps, euler.leaps]);
    const wanted = walk(euler, noise(1, 32), fakeModel);
    walk(solver, noise(1, 32), fakeModel).forEach(({ latent }, i) => {
      expect(relativeError(latent, wanted[i]?.latent as Float32Array)).toBeLessThan(1e-5);
    });
  });

  test("order 3 begins at mere noise with two steps of first order, and all steps are finite", () => {
    for (const n of [1, 2, 3, 20]) {
      for (const shift of [undefined, 0.2]) {
        // Shifted by 0.2 the first level is above 1 in float32.
        const own = shift === undefined ? {} : { shift, useDynamicShifting: false };
        const settings = { sampler: "deis", solverOrder: 3, lowerOrderFinal: false };
        const scheduler = { ...fluxScheduler, ...own, ...settings } as SchedulerConfig;
        const sampler = createSampler(scheduler, { numInferenceSteps: n, imageTokens: 1024 });
        const states = walk(sampler, noise(1, 8), fakeModel);
        expect(states.every(({ latent }) => latent.every(Number.isFinite))).toBe(true);
        const straight = createSampler({ ...scheduler, solverOrder: 1 } as SchedulerConfig, {
          numInferenceSteps: n,
          imageTokens: 1024,
        });
        expect(walk(straight, noise(1, 8), fakeModel)[2]?.latent).toEqual(states[2]?.latent);
      }
    }
  });

  /** Data with the distribution N(0, s²) has v = (σ − (1 − σ)·s²)/u·x for u = (1 − σ)²·s² + σ², and x grows as √u. */
  test.each([1, 2] as const)("order %i is its order of convergence on a linear equation", (solverOrder) => {
    const S2 = 0.25;
    const variance = (sigma: number) => (1 - sigma) ** 2 * S2 + sigma ** 2;
    const errorOf = (n: number): number => {
      const sigmas = Array.from({ length: n + 1 }, (_, i) => 0.9 - (0.8 * i) / n);
      const sampler = flowDeis(
        { predictionType: "flow_prediction", solverOrder },
        { numInferenceSteps: n + 1, sigmas },
      );
      const velocity = (x: Float32Array, i: number) => {
        const sigma = sampler.leaps[i]?.from.noise as number;
        return x.map((value) => ((sigma - (1 - sigma) * S2) / variance(sigma)) * value);
      };
      const found = walk(sampler, Float32Array.of(1), velocity, n)[n]?.latent[0] as number;
      return Math.abs(found / Math.sqrt(variance(0.1) / variance(0.9)) - 1);
    };
    const [coarse, fine] = [errorOf(20), errorOf(40)];
    expect(Math.log2(coarse / fine)).toBeGreaterThan(solverOrder - 0.25);
  });
});

describe("errors", () => {
  test.each([
    { numInferenceSteps: 0 },
    { solverOrder: 4 as 2 },
    { finalSigmasType: "one" as "zero" },
    { stepsOffset: -1 },
    { betaStart: 0 },
    { timestepSpacing: "even" as "dit" },
  ])("%j is refused by name", (option) => {
    const name = Object.keys(option)[0] as string;
    expect(() => deis({ numInferenceSteps: 2, ...option })).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringContaining(`${name}: expected`) }),
    );
  });

  test("of a flow too", () => {
    const build = (config: object) =>
      flowDeis({ predictionType: "flow_prediction", ...config }, { numInferenceSteps: 4 });
    expect(() => build({ solverOrder: 0 })).toThrow(/solverOrder: expected 1, 2 or 3, found 0/);
    expect(() => build({ shift: 0 })).toThrow(/shift: expected/);
  });
});
