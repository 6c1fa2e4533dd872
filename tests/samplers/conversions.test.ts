import { describe, expect, test } from "vitest";
import { ddim, dpmSolver } from "../../src/samplers/index.js";
import { alphaBar, fakeModel, noise, relativeError } from "./helpers.js";

const types = ["epsilon", "v_prediction", "sample"] as const;
const samplers = { ddim, dpmSolver };
const cases = (["ddim", "dpmSolver"] as const).flatMap((name) => types.map((type) => [name, type] as const));

/** x₀ in float64. */
function reference(type: (typeof types)[number], bar: number, x: number, m: number): number {
  const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
  return { epsilon: (x - b * m) / a, v_prediction: a * x - b * m, sample: m }[type];
}

describe.each(cases)("%s, %s", (name, predictionType) => {
  const sampler = samplers[name]({ predictionType, timestepSpacing: "trailing", numInferenceSteps: 10 });
  const latent = noise(1, 32);

  test("denoised is x₀ by its definition", () => {
    sampler.timesteps.forEach((t, i) => {
      const m = fakeModel(latent, i);
      const wanted = Array.from(latent, (x, k) => reference(predictionType, alphaBar(t), x, m[k] as number));
      expect(relativeError(sampler.denoised(i, latent, m), wanted)).toBeLessThan(1e-5);
    });
  });

  test("modelOutput is its inverse at every step", () => {
    sampler.timesteps.forEach((t, i) => {
      const m = fakeModel(latent, i);
      // x₀ in float32 holds a share of √(ᾱ/(1 − ᾱ)) of ε, and so much less of its digits.
      const lost = Math.max(1, Math.sqrt(alphaBar(t) / (1 - alphaBar(t))));
      expect(relativeError(sampler.modelOutput(i, latent, sampler.denoised(i, latent, m)), m)).toBeLessThan(
        1e-6 * lost,
      );
    });
  });

  test("the last step, which lands on no noise, gives what is denoised there", () => {
    const plain = name === "ddim" ? ddim({ predictionType, numInferenceSteps: 10, clipSample: false }) : sampler;
    const last = plain.step(9, { latent }, fakeModel(latent, 9)).latent;
    expect(relativeError(plain.denoised(9, latent, fakeModel(latent, 9)), last)).toBeLessThan(1e-6);
  });
});

test("what clipping does to x₀ does not show", () => {
  const clipping = ddim({ numInferenceSteps: 5, clipSample: true, clipSampleRange: 0.1 });
  const plain = ddim({ numInferenceSteps: 5, clipSample: false });
  const latent = noise(2, 8);
  expect(clipping.denoised(2, latent, latent)).toEqual(plain.denoised(2, latent, latent));
});

test("the inverse does not exist without noise", () => {
  // So small a β is lost in 1 − β.
  const options = { numTrainTimesteps: 2, trainedBetas: [1e-20, 0.5], clipSample: false, numInferenceSteps: 2 };
  const latent = noise(3, 4);
  const sampler = (predictionType: (typeof types)[number]) => ddim({ ...options, predictionType });
  for (const type of ["epsilon", "v_prediction"] as const) {
    expect(() => sampler(type).modelOutput(1, latent, latent)).toThrow(
      expect.objectContaining({ code: "E_OPTION", message: expect.stringMatching(/step 1: without noise/) }),
    );
  }
  expect(sampler("sample").modelOutput(1, latent, latent)).toEqual(latent);
});

test("steps and lengths that do not fit are refused", () => {
  const sampler = ddim({ numInferenceSteps: 5 });
  const [long, short] = [new Float32Array(4), new Float32Array(2)];
  expect(() => sampler.denoised(5, long, long)).toThrow(/expected an index from 0 to 4, found 5/);
  expect(() => sampler.denoised(0, long, short)).toThrow(/a model output as long as the latent, 4, found 2/);
  expect(() => sampler.modelOutput(0, long, short)).toThrow(/a denoised latent as long as the latent, 4, found 2/);
});
