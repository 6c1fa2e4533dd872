import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import {
  createSampler,
  type DdimConfig,
  ddim,
  ddimDefaults,
  ditScheduler,
  schedulerFromConfig,
  type TimestepSpacing,
} from "../../src/samplers/index.js";
import { alphaBar, fakeModel, firstLatent, noise, relativeError, walk } from "./helpers.js";

interface Golden {
  timesteps: { spacing: "leading" | "trailing" | "linspace"; steps: number; offset: number; timesteps: number[] }[];
  trajectories: { config: Record<string, unknown>; steps: number; latents: number[][] }[];
}

const golden: Golden = JSON.parse(readFileSync(new URL("../goldens/ddim.json", import.meta.url), "utf8"));

const latentConfig = { ...ddimDefaults, clipSample: false };
const configs: [string, DdimConfig][] = (["leading", "trailing", "linspace", "dit"] as const).flatMap((spacing) =>
  (["epsilon", "v_prediction", "sample"] as const).map((type): [string, DdimConfig] => [
    `${spacing}, ${type}`,
    { ...latentConfig, timestepSpacing: spacing, predictionType: type, numInferenceSteps: 10 },
  ]),
);

describe("against diffusers' DDIMScheduler", () => {
  test.each(golden.timesteps)(
    "timesteps: $spacing, $steps steps, offset $offset",
    ({ spacing, steps, offset, ...g }) => {
      const build = () => ddim({ numInferenceSteps: steps, timestepSpacing: spacing, stepsOffset: offset });
      if (Math.max(...g.timesteps) > 999) {
        expect(build).toThrow(/stepsOffset: 1000 steps with offset 1/); // diffusers fails later, at its first step
      } else if (spacing === "leading" && steps === 999) {
        expect(build).toThrow(/numInferenceSteps: expected at most 500, or 1000/); // begins late in diffusers
      } else {
        expect(build().timesteps).toEqual(g.timesteps);
      }
    },
  );

  test.each(golden.trajectories)("every step of $config, $steps steps", ({ config, steps, latents }) => {
    const sampler = createSampler(schedulerFromConfig(config), { sampler: "ddim", numInferenceSteps: steps });
    let x = firstLatent(6);
    expect(latents).toHaveLength(sampler.timesteps.length);
    latents.forEach((expected, i) => {
      const { latent } = sampler.step(i, { latent: x }, fakeModel(x, i));
      expect(relativeError(latent, expected)).toBeLessThan(5e-6); // measured: 2.3e-6, from ᾱ in float32 there
      x = Float32Array.from(expected);
    });
  });
});

describe("the DiT spacing", () => {
  test("50 steps are round(i·999/49), 999 down to 0", () => {
    const { timesteps } = ddim({ ...ditScheduler, numInferenceSteps: 50 });
    expect(timesteps).toEqual(Array.from({ length: 50 }, (_, i) => Math.round(((49 - i) * 999) / 49)));
  });

  test("every count from 1 to 1000 is strictly decreasing from 999 to 0; one step is [0]", () => {
    expect(ddim({ ...ditScheduler, numInferenceSteps: 1 }).timesteps).toEqual([0]);
    for (let n = 2; n <= 1000; n++) {
      const { timesteps } = ddim({ ...ditScheduler, numInferenceSteps: n });
      expect(timesteps).toHaveLength(n);
      expect([timesteps[0], timesteps[n - 1]]).toEqual([999, 0]);
      expect(timesteps.every((t, i) => i === 0 || t < (timesteps[i - 1] as number))).toBe(true);
    }
  });

  test("a step lands on the noise level of the next timestep, the last on none", () => {
    const sampler = ddim({ ...ditScheduler, numInferenceSteps: 7, setAlphaToOne: false });
    // With x₀ = 0, x = √(1 − ᾱ)·ε: feeding ε = 1 keeps x at the level of its timestep.
    let x: Float32Array = Float32Array.of(level(sampler.timesteps[0]));
    sampler.timesteps.forEach((_, i) => {
      x = sampler.step(i, { latent: x }, Float32Array.of(1)).latent;
      expect(x[0]).toBeCloseTo(level(sampler.timesteps[i + 1]), 5);
    });
  });
});

/** √(1 − ᾱ_t) of the linear chain; 0 beyond its end. */
const level = (t: number | undefined): number => Math.sqrt(1 - alphaBar(t));

test.each([1, 2, 10, 50])("a perfect noise model of a point mass recovers the point in %i steps", (n) => {
  const sampler = ddim({ ...ditScheduler, numInferenceSteps: n });
  const point = noise(1, 64);
  const perfect = (x: Float32Array, i: number) => {
    const b = level(sampler.timesteps[i]);
    const a = Math.sqrt(1 - b * b);
    return x.map((v, k) => (v - a * (point[k] as number)) / b);
  };
  expect(relativeError(walk(sampler, noise(2, 64), perfect)[n]?.latent as Float32Array, point)).toBeLessThan(1e-4);
});

describe.each(configs)("%s", (_, config) => {
  const sampler = ddim(config);
  const [x, y, m, w] = [noise(1, 32), noise(2, 32), noise(3, 32), noise(4, 32)];
  const step = (i: number, latent: Float32Array, output: Float32Array) => sampler.step(i, { latent }, output).latent;

  test("unclipped steps are linear in latent and model output", () => {
    const mix = (p: Float32Array, q: Float32Array) => p.map((v, k) => 2 * v - 0.5 * (q[k] as number));
    for (let i = 0; i < 10; i++) {
      const separate = mix(step(i, x, m), step(i, y, w));
      expect(relativeError(step(i, mix(x, y), mix(m, w)), separate)).toBeLessThan(1e-5);
    }
  });

  test("a step is pure: inputs stay, and walking it again gives the same", () => {
    const [xBefore, mBefore] = [x.slice(), m.slice()];
    const first = step(4, x, m);
    step(7, x, m);
    expect(step(4, x, m)).toEqual(first);
    expect([x, m]).toEqual([xBefore, mBefore]);
  });
});

describe("notes", () => {
  const notesOf = (timestepSpacing: TimestepSpacing, numInferenceSteps: number) =>
    ddim({ ...ditScheduler, timestepSpacing, numInferenceSteps }).notes.join();
  /** What is left of the noise ε = 1 over an empty image, by a model that knows it. */
  const left = (timestepSpacing: TimestepSpacing, numInferenceSteps: number) => {
    const sampler = ddim({ ...ditScheduler, timestepSpacing, numInferenceSteps });
    const first = Float32Array.of(level(sampler.timesteps[0]));
    return Math.abs(walk(sampler, first, () => Float32Array.of(1)).at(-1)?.latent[0] as number);
  };

  test("say so where a step lands far beside its list, and there noise stays", () => {
    for (const [spacing, n] of [
      ["linspace", 7],
      ["linspace", 501],
      ["trailing", 501],
    ] as const) {
      expect(left(spacing, n)).toBeGreaterThan(0.1);
      const [, percent] = /lands beside its own list .*: (\d+) % of the noise stays/.exec(notesOf(spacing, n)) ?? [];
      expect(Math.abs(Number(percent) - 100 * left(spacing, n))).toBeLessThan(1.5); // the last landing apart
    }
    expect(left("dit", 7)).toBeLessThan(1e-4);
    expect(left("dit", 501)).toBeLessThan(1e-4);
  });

  test("are none where hardly any noise stays, nor ever with a spacing that lands on its list", () => {
    for (const spacing of ["leading", "trailing", "dit"] as const) expect(notesOf(spacing, 50)).toBe("");
    expect(notesOf("linspace", 250)).toBe("");
    for (const n of [1, 2, 7, 60, 501, 1000]) expect(notesOf("dit", n)).toBe("");
    for (const n of [1, 2, 7, 60, 100, 500, 1000]) expect(notesOf("leading", n)).toBe("");
  });

  test("say so where leading strides begin late; beyond half the chain they are refused", () => {
    expect(notesOf("leading", 334)).toMatch('"leading" spacing of 334 steps begins 331 timesteps late');
    for (const n of [501, 750, 999]) {
      expect(() => notesOf("leading", n)).toThrow(
        expect.objectContaining({ code: "E_OPTION", message: expect.stringContaining(`found ${n}`) }),
      );
    }
  });
});

test("trailing spacing has n timesteps for every n, within the chain", () => {
  for (let n = 1; n <= 1000; n++) {
    const { timesteps } = ddim({ ...latentConfig, timestepSpacing: "trailing", numInferenceSteps: n });
    expect(timesteps).toHaveLength(n);
    expect(timesteps[0]).toBe(999);
    expect(timesteps[n - 1]).toBeGreaterThanOrEqual(0);
  }
});

describe("errors", () => {
  test.each([0, -1, 2.5, 1001, Number.NaN])("numInferenceSteps %s is refused", (numInferenceSteps) => {
    expect(() => ddim({ numInferenceSteps })).toThrow(/numInferenceSteps: expected an integer from 1 to 1000/);
  });

  test.each([
    { betaStart: 0 },
    { betaEnd: 1 },
    { clipSampleRange: 0 },
    { stepsOffset: -1 },
    { numTrainTimesteps: 0 },
    { numTrainTimesteps: 1e9 },
    { trainedBetas: [0.1, 0.2] },
    { predictionType: "flow" as "sample" },
  ])("%j is refused by name", (option) => {
    const name = Object.keys(option)[0] as string;
    expect(() => ddim({ numInferenceSteps: 1, ...option })).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringContaining(`${name}: expected`) }),
    );
  });

  test("noise prediction without any signal is refused, unless the timestep is not sampled", () => {
    const config = { ...latentConfig, rescaleBetasZeroSnr: true, numInferenceSteps: 10 };
    expect(() => ddim({ ...config, timestepSpacing: "trailing" })).toThrow(/timestep 999 has no signal/);
    expect(() => ddim({ ...config, timestepSpacing: "leading" })).not.toThrow();
  });

  test("step refuses an index out of range and lengths that differ", () => {
    const sampler = ddim({ numInferenceSteps: 5 });
    const latent = new Float32Array(4);
    expect(() => sampler.step(5, { latent }, new Float32Array(4))).toThrow(/index from 0 to 4, found 5/);
    expect(() => sampler.step(0, { latent }, new Float32Array(8))).toThrow(/latent, 4, found 8/);
  });
});
