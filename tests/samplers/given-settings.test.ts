import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import {
  createSampler,
  ddim,
  ditScheduler,
  dpmSolver,
  namedSamplers,
  type Sampler,
  type SamplerOption,
  type SchedulerConfig,
  schedulerFromConfig,
  settingsOf,
} from "../../src/samplers/index.js";
import { fluxScheduler } from "./flow-helpers.js";
import { fakeModel, firstLatent, walk } from "./helpers.js";

const run = (sampler: Sampler) => walk(sampler, firstLatent(8), fakeModel).at(-1)?.latent;
const own: SchedulerConfig = {
  sampler: "dpm-solver++",
  betaEnd: 0.01,
  solverType: "heun",
  timestepSpacing: "trailing",
};
const create = (scheduler: SchedulerConfig, sampler: SamplerOption, choice: object = {}) =>
  createSampler(scheduler, { sampler, numInferenceSteps: 6, ...choice });

describe("settings with a sampler's name", () => {
  test("go over the model's, where it is the model's sampler, and leave the others", () => {
    const found = create(own, { sampler: "dpm-solver++", solverOrder: 3 });
    const { sampler: _, ...settings } = own;
    expect(run(found)).toEqual(run(dpmSolver({ ...settings, solverOrder: 3, numInferenceSteps: 6 })));
    expect(run(create(own, { sampler: "dpm-solver++", solverType: "midpoint" }))).toEqual(
      run(dpmSolver({ ...settings, solverType: "midpoint", numInferenceSteps: 6 })),
    );
  });

  test("go over what carries over, where it is another", () => {
    const found = create(
      { ...ditScheduler, stepsOffset: 3 },
      { sampler: "dpm-solver++", stepsOffset: 1, solverOrder: 1 },
      {
        timestepSpacing: "leading",
      },
    );
    const wanted = dpmSolver({ timestepSpacing: "leading", stepsOffset: 1, solverOrder: 1, numInferenceSteps: 6 });
    expect([found.timesteps, run(found)]).toEqual([wanted.timesteps, run(wanted)]);
  });

  test("none, or undefined ones, are the name alone", () => {
    for (const name of namedSamplers) {
      const scheduler = name === "lcm" ? ({ sampler: "ddim" } as const) : ditScheduler;
      const given = { sampler: name, solverOrder: undefined } as SamplerOption;
      const text = (sampler: Sampler) => JSON.stringify(sampler);
      expect(text(create(scheduler, given))).toBe(text(create(scheduler, name)));
      expect(create(own, { sampler: name } as SamplerOption).leaps).toEqual(create(own, name).leaps);
    }
  });

  test("what no file says can be given: DDIM's eta", () => {
    const found = create(ditScheduler, { sampler: "ddim", eta: 1 });
    expect(found.draws?.(0)).toBe(true);
    expect(found.leaps).toEqual(ddim({ ...ditScheduler, numInferenceSteps: 6 }).leaps);
  });

  test("noise levels take the place of the model's, and a spacing beside them does not undo them", () => {
    const karras: SchedulerConfig = { ...own, useKarrasSigmas: true };
    const exponential = { sampler: "dpm-solver++", useExponentialSigmas: true } as const;
    for (const choice of [{}, { timestepSpacing: "trailing" }]) {
      expect(create(karras, exponential, choice).spacing).toBe("exponential");
      expect(create(own, exponential, choice).spacing).toBe("exponential");
    }
    expect(create(karras, { sampler: "dpm-solver++", solverOrder: 1 }).spacing).toBe("karras");
    expect(create(karras, { sampler: "dpm-solver++", useKarrasSigmas: false }).spacing).toBe("trailing");
    expect(() => create(own, { ...exponential, useBetaSigmas: true })).toThrow(/expected at most one of them/);
  });

  test("of a flow they are its sampler's: shift, and levels between those of the spacing", () => {
    const flow = (sampler: SamplerOption) =>
      create(fluxScheduler, sampler, { imageTokens: 64, timestepSpacing: "trailing" });
    const shifted = { ...fluxScheduler, useDynamicShifting: false, shift: 5 } as SchedulerConfig;
    expect(flow({ sampler: "euler", useDynamicShifting: false, shift: 5 }).leaps).toEqual(
      createSampler(shifted, { numInferenceSteps: 6, timestepSpacing: "trailing" }).leaps,
    );
    const [plain, karras] = [flow("euler"), flow({ sampler: "euler", useKarrasSigmas: true })];
    expect(karras.spacing).toBe("karras");
    expect([karras.leaps[0]?.from, karras.leaps.at(-1)?.from.noise]).toEqual([
      plain.leaps[0]?.from,
      expect.closeTo(plain.leaps.at(-1)?.from.noise as number, 6),
    ]);
    expect(flow({ sampler: "deis", solverOrder: 3 }).name).toBe("deis");
  });
});

describe("refused with their names", () => {
  test.each<[object, RegExp]>([
    [
      { sampler: "dpm-solver++", solverOder: 3 },
      /sampler: solverOder: dpm-solver\+\+ has no such setting; there are .*solverOrder/,
    ],
    [
      { sampler: "ddim", solverOrder: 3 },
      /sampler: solverOrder: ddim has no such setting; there are clipSample, clipSampleRange, /,
    ],
    [{ sampler: "unipc", betaStart: 0.1 }, /sampler: betaStart: the model's own, .* of unipc there are .*solverOrder/],
    [{ sampler: "unipc", predictionType: "sample" }, /sampler: predictionType: the model's own/],
    [{ sampler: "unipc", numTrainTimesteps: 10 }, /sampler: numTrainTimesteps: the model's own/],
    [{ sampler: "deis", timestepSpacing: "trailing" }, /sampler: timestepSpacing: an option beside sampler/],
    [{ sampler: "euler-ancestral", x: 1 }, /sampler: x: euler-ancestral has no such setting; there are stepsOffset\./],
    [{ sampler: "dpm-solver++", solverOrder: "3" }, /sampler: solverOrder: expected a number, found "3"/],
    [{ sampler: "dpm-solver++", lowerOrderFinal: 1 }, /sampler: lowerOrderFinal: expected a boolean, found 1/],
    [{ sampler: "dpm-solver++", solverType: {} }, /sampler: solverType: expected a string, found an object/],
    [{ sampler: "unipc", disableCorrector: 1 }, /sampler: disableCorrector: expected a list, found 1/],
    [{ sampler: "unipc", disableCorrector: ["0"] }, /disableCorrector: expected a list of steps from 0/],
    [{ sampler: "dpm-solver++", solverOrder: 4 }, /solverOrder: expected 1, 2 or 3, found 4/],
    [{ sampler: "heun", solverOrder: 2 }, /sampler: expected one of ddim, .*found "heun"/],
    [{ sampler: "constructor" }, /sampler: expected one of ddim, .*found "constructor"/],
    [{ sampler: "ddim", constructor: 1 }, /sampler: constructor: ddim has no such setting/],
    [{ sampler: "ddim", stepsOffset: null }, /sampler: stepsOffset: expected a number, found null/],
  ])("%j", (sampler, message) => {
    expect(() => create(ditScheduler, sampler as SamplerOption)).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(message) }),
    );
  });

  test("of a flow too", () => {
    const refused = (sampler: object) => () => create(fluxScheduler, sampler as SamplerOption, { imageTokens: 64 });
    expect(refused({ sampler: "euler", predictionType: "epsilon" })).toThrow(/predictionType: the model's own/);
    expect(refused({ sampler: "euler", shiftTerminal: "0" })).toThrow(/shiftTerminal: expected a number or null/);
    expect(refused({ sampler: "unipc", solverOrder: 2 })).toThrow(/which does not sample a flow/);
    expect(refused({ sampler: "euler", solverOrder: 2 })).toThrow(/solverOrder: euler has no such setting/);
  });

  test("whatever is given, there is a sampler with finite steps, or an error that says what is wrong", () => {
    const value = fc.oneof(
      fc.double(),
      fc.integer({ min: -2, max: 5 }),
      fc.boolean(),
      fc.string(),
      fc.constant(null),
      fc.constant([]),
      fc.constant([1.5]),
    );
    const keys = [
      "solverOrder",
      "solverType",
      "eta",
      "clipSample",
      "clipSampleRange",
      "stepsOffset",
      "useKarrasSigmas",
      "disableCorrector",
      "timestepScaling",
      "shift",
      "maxShift",
      "baseImageSeqLen",
      "maxImageSeqLen",
      "shiftTerminal",
      "varianceType",
    ];
    const settings = fc.dictionary(fc.constantFrom(...keys), value, { maxKeys: 2 });
    const scheduler = fc.constantFrom<SchedulerConfig>(ditScheduler, fluxScheduler);
    fc.assert(
      fc.property(fc.constantFrom(...namedSamplers), settings, scheduler, (sampler, given, model) => {
        let made: Sampler;
        try {
          made = create(model, { ...given, sampler } as SamplerOption, { imageTokens: 64 });
        } catch (error) {
          expect(error).toBeInstanceOf(FemoError);
          expect(error).toMatchObject({ code: "E_OPTION", message: expect.stringMatching(/expected|there are/) });
          return;
        }
        for (const { from, to } of made.leaps) expect([from.noise, to.noise].every(Number.isFinite)).toBe(true);
      }),
      { numRuns: 400 },
    );
  });
});

test("types say which settings a sampler has", () => {
  const known: SamplerOption[] = [
    { sampler: "dpm-solver++", solverOrder: 3, useKarrasSigmas: true },
    { sampler: "deis", finalSigmasType: "zero" },
    { sampler: "euler", shift: 3 },
    { sampler: "unipc" },
  ];
  // @ts-expect-error
  const unknown: SamplerOption = { sampler: "ddim", solverOrder: 3 };
  // @ts-expect-error
  const models: SamplerOption = { sampler: "ddim", betaEnd: 0.1 };
  // @ts-expect-error
  const spacing: SamplerOption = { sampler: "ddim", timestepSpacing: "dit" };
  expect(known.map(settingsOf).filter(Boolean)).toHaveLength(3);
  for (const option of [unknown, models, spacing]) expect(() => create(ditScheduler, option)).toThrow(/there are/);
});

test("the settings that a request gave are plain data of their own", () => {
  const disableCorrector = [0, 1];
  const given = { sampler: "unipc", disableCorrector, solverOrder: undefined } as unknown as SamplerOption;
  const settings = settingsOf(given);
  disableCorrector.push(2);
  expect(settings).toEqual({ disableCorrector: [0, 1] });
  expect(Object.keys(settings as object)).toEqual(["disableCorrector"]);
  const none = [undefined, "unipc", { sampler: "unipc" }] as const;
  expect(none.map(settingsOf)).toEqual([undefined, undefined, undefined]);
  expect(settingsOf({ sampler: "multistep", timesteps: [1], table: [[1]] })).toBeUndefined();
  // A file's own settings, given again, change nothing.
  const { sampler: _, ...file } = schedulerFromConfig({ _class_name: "UniPCMultistepScheduler", solver_order: 3 });
  expect(
    run(create({ sampler: "unipc", ...file } as SchedulerConfig, { sampler: "unipc", ...file } as SamplerOption)),
  ).toEqual(run(create({ sampler: "unipc", ...file } as SchedulerConfig, "unipc")));
});
