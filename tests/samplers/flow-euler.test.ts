import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { betaQuantile } from "../../src/samplers/beta-quantile.js";
import {
  createSampler,
  type FlowConfig,
  flowEuler,
  type Sampler,
  type SamplerChoice,
  type SchedulerConfig,
  schedulerFromConfig,
} from "../../src/samplers/index.js";
import { flowGolden, fluxScheduler, type Made, modelTimes, sigmasOf } from "./flow-helpers.js";
import { fakeModel, noise, relativeError, walk } from "./helpers.js";

type List = "trailing" | readonly number[] | null;

function samplerOf({ config, tokens, steps, list }: Made & { readonly list: List }) {
  const scheduler = schedulerFromConfig({ _class_name: "FlowMatchEulerDiscreteScheduler", ...config });
  const own = list === "trailing" ? { ...scheduler, timestepSpacing: list } : scheduler;
  return createSampler(own as SchedulerConfig, {
    numInferenceSteps: steps,
    ...(tokens !== null && { imageTokens: tokens }),
    ...(list !== null && list !== "trailing" && { sigmas: list }),
  });
}

describe("against diffusers' FlowMatchEulerDiscreteScheduler", () => {
  test(`noise levels and timesteps are the same to the bit, in ${flowGolden.schedules.length} ways`, () => {
    for (const { timesteps, sigmas, ...made } of flowGolden.schedules) {
      const sampler = samplerOf(made);
      expect([made, sigmasOf(sampler)]).toEqual([made, sigmas.map(Math.fround)]);
      expect([made, sampler.timesteps]).toEqual([made, modelTimes(timesteps)]);
    }
  });

  test.each(flowGolden.steps)(
    "steps are the same to the bit: $config, $list",
    ({ first, velocities, latents, ...made }) => {
      const sampler = samplerOf(made);
      const output = (_: Float32Array, i: number) => Float32Array.from(velocities[i] as number[]);
      const states = walk(sampler, Float32Array.from(first), output);
      expect(states.slice(1).map(({ latent }) => latent)).toEqual(latents.map((row) => Float32Array.from(row)));
    },
  );

  test("the numbers of FLUX.1-dev at 1024 x 1024 and of Stable Diffusion 3", () => {
    const dev = createSampler(fluxScheduler, { numInferenceSteps: 4, imageTokens: 4096 });
    expect(sigmasOf(dev)).toEqual([1, 0.9045307636260986, 0.7595109343528748, 0.5128441452980042, 0]);
    const sd3 = sigmasOf(samplerOf({ config: { shift: 3 }, tokens: null, steps: 28, list: null }));
    expect([sd3[0], sd3[1], sd3[2], sd3[27]]).toEqual(
      [1, 0.98738062, 0.97410768, 0.00892857].map((s) => expect.closeTo(s, 6)),
    );
  });
});

test("quantiles of Beta(a, a) are scipy's", () => {
  for (const { a, p, x } of flowGolden.quantiles) {
    expect(Math.abs(betaQuantile(p, a) - x)).toBeLessThanOrEqual(1e-13 * x);
  }
});

describe("what the output means", () => {
  const sampler = createSampler(fluxScheduler, { numInferenceSteps: 9, imageTokens: 64 });
  const latent = noise(1, 32);

  test("denoised is x - sigma v, modelOutput its inverse, and the last step gives what is denoised there", () => {
    sampler.leaps.forEach(({ from: { noise: sigma } }, i) => {
      const v = fakeModel(latent, i);
      const x0 = sampler.denoised(i, latent, v);
      expect(
        relativeError(
          x0,
          latent.map((x, k) => x - sigma * (v[k] as number)),
        ),
      ).toBeLessThan(1e-6);
      expect(relativeError(sampler.modelOutput(i, latent, x0), v)).toBeLessThan(1e-6 / sigma);
    });
    const v = fakeModel(latent, 8);
    expect(relativeError(sampler.step(8, { latent }, v).latent, sampler.denoised(8, latent, v))).toBeLessThan(1e-6);
  });

  test("a step to x0 that is known goes straight there: one of any length gives the same", () => {
    // Of x = (1 − σ)·x₀ + σ·ε the velocity is ε − x₀ all along.
    const [x0, eps] = [noise(2, 16), noise(3, 16)];
    const v = eps.map((e, k) => e - (x0[k] as number));
    walk(sampler, eps, () => v).forEach(({ latent }, i) => {
      const sigma = sigmasOf(sampler)[i] as number;
      expect(
        relativeError(
          latent,
          x0.map((x, k) => (1 - sigma) * x + sigma * (eps[k] as number)),
        ),
      ).toBeLessThan(1e-6);
    });
  });

  test("every step from its stored state gives the same bytes, in any order", () => {
    const states = walk(sampler, latent, fakeModel);
    for (const i of [8, 2, 0, 5]) {
      const state = states[i] as (typeof states)[number];
      expect(sampler.step(i, state, fakeModel(state.latent, i))).toStrictEqual(states[i + 1]);
    }
    expect([sampler.position(0), sampler.position(8)]).toEqual([8, 0]);
  });
});

describe("reading a config", () => {
  const read = (json: object) => schedulerFromConfig({ _class_name: "FlowMatchEulerDiscreteScheduler", ...json });

  test("every key has its setting", () => {
    const json = {
      num_train_timesteps: 500,
      shift: 3,
      use_dynamic_shifting: true,
      base_shift: 0.4,
      max_shift: 1.2,
      base_image_seq_len: 128,
      max_image_seq_len: 2048,
      invert_sigmas: false,
      shift_terminal: 0.02,
      use_karras_sigmas: false,
      use_exponential_sigmas: true,
      use_beta_sigmas: false,
      time_shift_type: "linear",
      stochastic_sampling: false,
      _diffusers_version: "0.42.1",
    };
    expect(read(json)).toStrictEqual({
      sampler: "euler",
      predictionType: "flow_prediction",
      numTrainTimesteps: 500,
      shift: 3,
      useDynamicShifting: true,
      baseShift: 0.4,
      maxShift: 1.2,
      baseImageSeqLen: 128,
      maxImageSeqLen: 2048,
      shiftTerminal: 0.02,
      useKarrasSigmas: false,
      useExponentialSigmas: true,
      useBetaSigmas: false,
      timeShiftType: "linear",
    });
    expect(read({ shift_terminal: null })).toStrictEqual({
      sampler: "euler",
      predictionType: "flow_prediction",
      shiftTerminal: null,
    });
  });

  test.each<[object, RegExp]>([
    [{ invert_sigmas: true }, /invert_sigmas: found true, allowed: false/],
    [{ stochastic_sampling: true }, /stochastic_sampling: found true, allowed: false/],
    [{ time_shift_type: "cubic" }, /time_shift_type: found "cubic", allowed: "exponential", "linear"/],
    [{ shift: 0 }, /shift: found 0, allowed: a number above 0/],
    [{ shift_terminal: 1 }, /shift_terminal: found 1, allowed: a number below 1/],
    [{ base_image_seq_len: "256" }, /base_image_seq_len: found "256"/],
    [
      { use_karras_sigmas: true, use_beta_sigmas: true },
      /found use_karras_sigmas and use_beta_sigmas, allowed: one of them/,
    ],
  ])("%j is refused", (json, message) => {
    expect(() => read(json)).toThrow(
      expect.objectContaining({ code: "E_CONFIG", message: expect.stringMatching(message) }),
    );
  });
});

describe("a request", () => {
  const create = (choice: Partial<SamplerChoice>, config: Partial<FlowConfig> = {}) =>
    createSampler({ ...fluxScheduler, ...config } as SchedulerConfig, {
      numInferenceSteps: 4,
      imageTokens: 1024,
      ...choice,
    });

  test("its spacing and its levels go before the model's, and are reported", () => {
    expect(create({}).spacing).toBe("trailing");
    expect(create({ timestepSpacing: "linspace" }).spacing).toBe("linspace");
    expect(create({}, { useKarrasSigmas: true }).spacing).toBe("karras");
    expect(create({ timestepSpacing: "trailing" }, { useKarrasSigmas: true }).spacing).toBe("trailing");
    const given = create({ sigmas: [1, 0.75, 0.5, 0.25] });
    expect(given.spacing).toBe("given");
    expect(given.leaps).toEqual(create({}).leaps);
  });

  test("of another size has other levels, if shifting is dynamic", () => {
    expect(create({ imageTokens: 64 }).timesteps).not.toEqual(create({}).timesteps);
    const still = { useDynamicShifting: false };
    expect(create({ imageTokens: 64 }, still).timesteps).toEqual(create({ imageTokens: undefined }, still).timesteps);
  });

  test.each<[Partial<SamplerChoice>, Partial<FlowConfig>, RegExp]>([
    [{ imageTokens: undefined }, {}, /imageTokens: expected the number of the image's tokens/],
    [{ imageTokens: 0.5 }, {}, /imageTokens: expected .* found 0.5/],
    [{ numInferenceSteps: 0 }, {}, /numInferenceSteps: expected an integer from 1 to 1000 .* found 0/],
    [{ numInferenceSteps: 1001 }, {}, /numInferenceSteps: .* found 1001/],
    [
      { timestepSpacing: "dit" },
      {},
      /timestepSpacing: expected one of trailing, linspace, as the model is a flow, found dit/,
    ],
    [{ sigmas: [1, 0.5] }, {}, /sigmas: expected a list of 4 numbers \(numInferenceSteps\), found 2/],
    [{ sigmas: 3 as never }, {}, /sigmas: expected a list of 4 numbers \(numInferenceSteps\), found 3/],
    [{ sigmas: [1, 0.5, 0.5, 0.1] }, {}, /sigmas: .* found 0.5 at step 2 after 0.5/],
    [{ sigmas: [1, 0.5, 0.2, 0] }, {}, /sigmas: .* found 0 at step 3/],
    [{ sigmas: [1.5, 1, 0.5, 0.2] }, {}, /sigmas: .* found 1.5 at step 0/],
    [{ sigmas: [1, Number.NaN, 0.5, 0.2] }, {}, /sigmas: .* found NaN at step 1/],
    [{ sigmas: [1, 0.7, 0.5, 0.2], timestepSpacing: "trailing" }, {}, /timestepSpacing: expected none beside sigmas/],
    [{ imageTokens: 1e9 }, {}, /sigmas: expected noise levels .* found .* at step/],
    [{}, { shift: -1 }, /shift: expected a positive number/],
    [{}, { shiftTerminal: 2 }, /shiftTerminal: expected null or a number from 0 to below 1, found 2/],
    [{ numInferenceSteps: 1 }, { shiftTerminal: 0.1 }, /sigmas: expected noise levels .* found NaN/],
    [{}, { timeShiftType: "cubic" as never }, /timeShiftType: expected one of exponential, linear/],
    [{}, { maxImageSeqLen: 256 }, /maxImageSeqLen: expected another number than baseImageSeqLen/],
    [{}, { useKarrasSigmas: true, useBetaSigmas: true }, /useKarrasSigmas, useBetaSigmas: expected at most one/],
    [
      { sampler: "ddim" },
      {},
      /sampler: expected one of euler, dpm-solver\+\+, .* found "ddim", which does not sample a flow/,
    ],
  ])("%j of %j is refused by name", (choice, config, message) => {
    expect(() => create(choice, config)).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(message) }),
    );
  });

  test("of any numbers gives levels that fall and finite steps, or is refused", () => {
    const number = fc.oneof(fc.double(), fc.constantFrom(0, 1, -1, 1e300), fc.integer({ min: 1, max: 5000 }));
    const config = fc.record(
      {
        shift: number,
        useDynamicShifting: fc.boolean(),
        baseShift: number,
        maxShift: number,
        baseImageSeqLen: number,
        maxImageSeqLen: number,
        timeShiftType: fc.constantFrom("exponential", "linear"),
        shiftTerminal: fc.option(number),
        useKarrasSigmas: fc.boolean(),
        useExponentialSigmas: fc.boolean(),
        useBetaSigmas: fc.boolean(),
        timestepSpacing: fc.constantFrom("trailing", "linspace"),
        solverOrder: fc.constantFrom(1, 2),
      },
      { requiredKeys: [] },
    );
    const choice = fc.record({
      sampler: fc.constantFrom("euler", "dpm-solver++"),
      numInferenceSteps: fc.integer({ min: 0, max: 12 }),
      imageTokens: number,
      sigmas: fc.option(fc.array(fc.double({ min: -1, max: 2 }), { maxLength: 3 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(config, choice, (settings, { sampler, ...chosen }) => {
        const scheduler = { predictionType: "flow_prediction", ...settings, sampler } as SchedulerConfig;
        let made: Sampler;
        try {
          made = createSampler(scheduler, chosen);
        } catch (error) {
          expect(error).toMatchObject({ code: "E_OPTION" });
          return;
        }
        const sigmas = sigmasOf(made);
        expect(sigmas.every((sigma, i) => sigma >= 0 && sigma < (sigmas[i - 1] ?? 1.1))).toBe(true);
        expect(walk(made, noise(1, 4), fakeModel).every(({ latent }) => latent.every(Number.isFinite))).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  test("of a diffusion has no levels of its own", () => {
    const choice = { numInferenceSteps: 2, sigmas: [1, 0.5] };
    expect(() => createSampler({ sampler: "ddim" }, choice)).toThrow(/sigmas: expected none, as the model is no flow/);
    expect(createSampler({ sampler: "ddim" }, { numInferenceSteps: 2, imageTokens: 5 }).name).toBe("ddim");
  });

  test("settings of a flow alone are enough", () => {
    const { timesteps } = flowEuler({ predictionType: "flow_prediction" }, { numInferenceSteps: 2 });
    expect(timesteps).toEqual([1, Math.fround(0.001)]);
  });
});
