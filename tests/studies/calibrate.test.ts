import { beforeAll, describe, expect, test } from "vitest";
import type { StepProgress } from "../../src/pipelines/index.js";
import { TorchGenerator } from "../../src/samplers/index.js";
import { calibrate } from "../../src/studies/index.js";
import { fitPolynomial } from "../../src/studies/polynomial-fit.js";
import { graphNames, traceCut } from "../../src/tracing/index.js";
import { random } from "../methods/forecasts/replay.js";
import { openModel } from "../models/tiny.js";
import { engineForTests, floats, integers, numbers } from "../runtime/helpers.js";
import { openTinyPipeline, tiny } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

const valueAt = (coefficients: readonly number[], x: number): number => coefficients.reduce((sum, c) => sum * x + c, 0);
/** Largest |sum over points of (p(x) - y) x^k|, which is 0 for the best polynomial, relative to sum |y x^k|. */
function offNormal(coefficients: readonly number[], points: readonly (readonly [number, number])[]): number {
  const off = coefficients.map((_, k) => {
    const sums = points.map(([x, y]) => [(valueAt(coefficients, x) - y) * x ** k, Math.abs(y * x ** k)] as const);
    const [error, scale] = [0, 1].map((i) => sums.reduce((sum, pair) => sum + (pair[i] as number), 0)) as [
      number,
      number,
    ];
    return Math.abs(error) / scale;
  });
  return Math.max(...off);
}

describe("the fit", () => {
  const xs = Array.from({ length: 40 }, (_, i) => 0.01 + 0.007 * i);

  test("finds a polynomial from its values", () => {
    for (const wanted of [
      [1, 0],
      [3, -2, 0.5],
      [498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861],
    ]) {
      const points = xs.map((x) => [x, valueAt(wanted, x)] as const);
      const found = fitPolynomial(points, wanted.length - 1);
      found.forEach((c, i) => {
        expect(c / (wanted[i] || 1)).toBeCloseTo(wanted[i] ? 1 : 0, 7);
      });
    }
  });

  test("of what no polynomial is solves the normal equations", () => {
    for (let seed = 0; seed < 10; seed++) {
      const next = random(seed);
      const points = xs.map((x) => [x + 0.003 * next(), Math.sin(9 * x) + next()] as const);
      expect(offNormal(fitPolynomial(points, 4), points)).toBeLessThan(1e-10);
    }
  });

  test("needs as many different points as it has coefficients", async () => {
    const points = [1, 2, 1, 2, 1, 2].map((x) => [x, x] as const);
    expect(await femoError("E_OPTION", () => fitPolynomial(points, 2))).toContain("at least 3 different sizes");
  });
});

const { pipeline, folder } = await openTinyPipeline();

describe("on a model", () => {
  const engine = engineForTests();
  const [labels, steps, seed] = [[0, 3], 6, 5];
  const size = 3 * tiny.size ** 2;
  /** Mark and residual of each step of each image. */
  const seen: { u: number[]; residual: number[] }[][] = [];
  const options = { classLabels: labels, numInferenceSteps: steps, guidanceScale: 1, seed };

  beforeAll(async () => {
    const progress: StepProgress[] = [];
    await pipeline.generate({
      ...options,
      onStep: (step) => progress.push({ ...step, latents: step.latents.slice() }),
    });
    const { model, run } = await openModel(engine, folder);
    const whole = traceCut(model, { capture: { level: "stack" }, give: ["modulated"], hoisted: "inline" });
    for (const [i, label] of labels.entries()) {
      seen.push([]);
      for (let step = 0; step < steps; step++) {
        const before = progress[step - 1]?.latents.subarray(i * size, (i + 1) * size);
        const sample = before ?? new TorchGenerator(seed + i).randn([1, 3, tiny.size, tiny.size]);
        const outputs = await run(whole, {
          sample: floats([1, 3, tiny.size, tiny.size], sample),
          timestep: floats([1], [progress[step]?.timestep as number]),
          class_label: integers([1], [label]),
        });
        const residual = outputs[graphNames.feature(whole.captured[0]?.name as string)];
        seen[i]?.push({ u: numbers(outputs[graphNames.mark("modulated")]), residual: numbers(residual) });
      }
    }
  });

  test("TeaCache's polynomial is the best of its degree through the changes of all steps and images", async () => {
    const { method, coefficients } = await calibrate(pipeline, "teaCache", { ...options, batchSize: 1 });
    const change = (now: number[], then: number[]) =>
      now.reduce((sum, x, i) => sum + Math.abs(x - (then[i] as number)), 0) /
      then.reduce((sum, x) => sum + Math.abs(x), 0);
    const points = seen.flatMap((image) =>
      image.slice(1).map(({ u, residual }, i) => {
        const before = image[i] as (typeof image)[number];
        return [change(u, before.u), change(residual, before.residual)] as const;
      }),
    );
    expect(method).toBe("teaCache");
    const own = fitPolynomial(points, 4);
    for (const [x, y] of points) expect(Math.abs(valueAt(coefficients, x) - valueAt(own, x))).toBeLessThan(1e-3 * y);
  });

  test("MagCache's ratios are the means over images and tokens", async () => {
    const { ratios } = await calibrate(pipeline, "magCache", options);
    const norms = ({ residual }: { residual: number[] }) =>
      Array.from({ length: tiny.tokens }, (_, token) =>
        Math.hypot(...residual.slice(token * tiny.width, (token + 1) * tiny.width)),
      );
    expect(ratios).toHaveLength(steps);
    expect(ratios[0]).toBe(1);
    for (let step = 1; step < steps; step++) {
      const all = seen.flatMap((image) => {
        const [now, before] = [norms(image[step] as never), norms(image[step - 1] as never)];
        return now.map((n, token) => n / (before[token] as number));
      });
      expect(ratios[step]).toBeCloseTo(all.reduce((a, b) => a + b) / all.length, 4);
    }
  });

  test("what it gives is a cache", async () => {
    const found = await calibrate(pipeline, "magCache", options);
    const { report } = await pipeline.generate({ ...options, cache: { ...found, threshold: 0.5, retentionRatio: 0 } });
    expect(report.fullSteps[0]?.length).toBeLessThan(steps);
    expect(report.cache).toMatchObject({ method: "magCache", ratios: found.ratios });
  });

  test("too few steps to fit, and a method that needs none, are refused", async () => {
    await femoError("E_OPTION", () => calibrate(pipeline, "teaCache", { ...options, numInferenceSteps: 2 }));
    const message = await femoError("E_OPTION", () => calibrate(pipeline, "fora" as never, options));
    expect(message).toContain("teaCache, magCache");
  });
});
