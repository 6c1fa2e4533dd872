import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type CacheOptions, defaultPresets } from "../../src/methods/index.js";
import { createSampler, type SamplerState, TorchGenerator } from "../../src/samplers/index.js";
import {
  ablation,
  errorOverHorizon,
  forecastingMethods,
  forecastPaths,
  planeOfGram,
  principalPlane,
  project,
  recordTrajectories,
  type Trajectories,
} from "../../src/studies/index.js";
import { openLoop, openLoopMethod } from "../../src/studies/trajectories/open-loop.js";
import { random, replay } from "../methods/forecasts/replay.js";
import { openTinyPipeline, tiny } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

type Vector = ArrayLike<number>;
const dot = (a: Vector, b: Vector): number => Array.from(a).reduce((sum, x, i) => sum + x * (b[i] as number), 0);
const norm = (a: Vector): number => Math.sqrt(dot(a, a));
const difference = (a: Vector, b: Vector): number[] => Array.from(a, (x, i) => x - (b[i] as number));
const gramOf = (points: readonly Vector[]) => points.map((a) => points.map((b) => dot(a, b)));

/** Paths that nobody drew. @param images [images][rows][steps] */
function made(images: readonly (readonly (readonly Vector[])[])[]): Trajectories {
  const steps = images[0]?.[0]?.length as number;
  return {
    model: "made up",
    level: "output",
    site: "output",
    dims: [images[0]?.[0]?.[0]?.length as number],
    timesteps: Array.from({ length: steps }, (_, step) => 20 * (steps - 1 - step)),
    positions: Array.from({ length: steps }, (_, step) => steps - 1 - step),
    sampling: { sampler: "ddim", timestepSpacing: "dit", numInferenceSteps: steps },
    presets: defaultPresets,
    schedules: [],
    trajectories: images.map((rows, image) => ({
      image,
      subject: image,
      seed: image,
      rows: rows.map((path) => ({ gram: gramOf(path) })),
    })),
  };
}
/** A walk in as many dimensions. */
function walk(seed: number, steps: number, size = 5): Float64Array[] {
  const next = random(seed);
  let [at, speed] = [Float64Array.from({ length: size }, () => 3 * next()), new Float64Array(size)];
  return Array.from({ length: steps }, () => {
    speed = speed.map((v) => 0.8 * v + 0.2 * next());
    at = at.map((x, i) => x + (speed[i] as number));
    return at;
  });
}

describe("the plane of a path", () => {
  const [a, b, c] = [
    [1, 2, 0, -1, 0, 1],
    [0, 1, -1, 1, 2, 0],
    [4, 0, 1, 3, -2, 5],
  ] as const;
  const inPlane = (u: number, v: number): number[] => c.map((x, i) => x + u * (a[i] as number) + v * (b[i] as number));
  const number = fc.double({ min: -5, max: 5, noNaN: true });
  const points = fc.array(fc.tuple(number, number), { minLength: 3, maxLength: 12 });

  test("keeps the distances of points that lie in a plane, and has all of their variance", () => {
    fc.assert(
      fc.property(points, (coordinates) => {
        const all = coordinates.map(([u, v]) => inPlane(u, v));
        const plane = planeOfGram(gramOf(all));
        const tolerance = 1e-6 * Math.hypot(...all.map(norm)); // inner products know nothing smaller of points far from the origin
        for (const [i, p] of all.entries()) {
          for (const [j, q] of all.entries()) {
            const [s, t] = [plane.points[i], plane.points[j]] as const;
            const found = Math.hypot((s?.x ?? 0) - (t?.x ?? 0), (s?.y ?? 0) - (t?.y ?? 0));
            expect(Math.abs(found - norm(difference(p, q)))).toBeLessThan(tolerance);
          }
        }
      }),
      { numRuns: 100 },
    );
    const { shares } = planeOfGram(gramOf([inPlane(0, 1), inPlane(2, -1), inPlane(-3, 2), inPlane(1, 1)]));
    expect(shares[0] + shares[1]).toBeCloseTo(1, 9);
    expect(shares[0]).toBeGreaterThan(shares[1]);
  });

  test("holds no less of the variance than any other", () => {
    const path = walk(3, 20);
    const { mean, axes, share } = principalPlane(path);
    const offsets = path.map((point) => difference(point, mean));
    const total = offsets.reduce((sum, offset) => sum + dot(offset, offset), 0);
    const within = (directions: readonly Vector[]) =>
      offsets.reduce((sum, offset) => sum + directions.reduce((part, u) => part + dot(offset, u) ** 2, 0), 0) / total;
    expect(within(axes)).toBeCloseTo(share, 9);
    for (const [i, u] of axes.entries())
      for (const [j, v] of axes.entries()) expect(dot(u, v)).toBeCloseTo(+(i === j), 9);
    const next = random(5);
    for (let trial = 0; trial < 100; trial++) {
      const [u, w] = [0, 0].map(() => Array.from({ length: 5 }, next)) as [number[], number[]];
      const first = u.map((x) => x / norm(u));
      const rest = w.map((x, i) => x - dot(w, first) * (first[i] as number));
      expect(within([first, rest.map((x) => x / norm(rest))])).toBeLessThanOrEqual(share + 1e-12);
    }
  });

  test("is the same by points and by their inner products, for sums of them too, whatever their weights sum to", () => {
    const path = walk(8, 12);
    const [plane, far] = [planeOfGram(gramOf(path)), principalPlane(path)];
    const next = random(1);
    for (const weights of [path.map((_, i) => +(i === 3)), path.map(next), path.map(next)]) {
      const point = Array.from({ length: 5 }, (_, k) =>
        weights.reduce((sum, w, i) => sum + w * (path[i]?.[k] ?? 0), 0),
      );
      const [found, wanted] = [plane.project(weights), project(far, point)];
      expect(found.x).toBeCloseTo(wanted.x, 9);
      expect(found.y).toBeCloseTo(wanted.y, 9);
    }
    expect(plane.points[3]).toEqual(plane.project(path.map((_, i) => +(i === 3))));
  });

  test("of points that do not move is a point", () => {
    const { points: found, shares } = planeOfGram(gramOf([c, c, c]));
    for (const { x, y } of found) expect(Math.hypot(x, y)).toBeLessThan(1e-6);
    expect(shares[0] + shares[1]).toBeLessThanOrEqual(1);
    expect(planeOfGram([[0]]).points).toEqual([{ x: 0, y: 0 }]);
  });
});

describe("forecasts laid over a path", () => {
  const steps = 24;
  const curve = (degree: number) =>
    Array.from({ length: steps }, (_, step) =>
      Float64Array.from(
        { length: 4 },
        (_, i) => (i + 1) * (1 + (step / 10) ** degree) - (degree > 0 ? i * step * 0.1 : 0),
      ),
    );
  const errorsOf = (trajectories: Trajectories, cache: CacheOptions, after = 0): number[] =>
    forecastPaths(trajectories, { methods: [cache] })
      .methods.flatMap(({ path }) => path)
      .filter(({ step }) => step > after)
      .map(({ relativeError }) => relativeError);

  test.each<[string, number, CacheOptions]>([
    ["fora", 0, { method: "fora", interval: 5 }],
    ["taylorSeer", 1, { method: "taylorSeer", interval: 4, order: 3 }],
    ["femo", 1, { method: "femo", interval: 4, order: 1, beta: 0.4 }],
    ["newton", 2, { method: "newton", interval: 3, order: 2, firstEnhance: 3 }],
    ["newton", 3, { method: "newton", interval: 3, order: 3, firstEnhance: 4 }],
  ])("of %s are exact on curves of degree %i, and not beyond", (_, degree, cache) => {
    expect(Math.max(...errorsOf(made([[curve(degree)]]), cache))).toBeLessThan(1e-6);
    expect(Math.max(...errorsOf(made([[curve(degree + 1)]]), cache))).toBeGreaterThan(1e-3);
  });

  test("lie at full steps on the path, and are in the plane where their weights say", () => {
    const trajectories = made([[walk(2, steps)]]);
    const { truth, methods } = forecastPaths(trajectories);
    expect(methods.map(({ settings }) => settings.method)).toEqual(forecastingMethods);
    expect(forecastingMethods).toEqual(["fora", "taylorSeer", "newton", "femo", "adaptedFemo", "hiCache", "foca"]);
    for (const { path } of methods) {
      const full = path.filter((step) => step.full);
      expect(full.map(({ step }) => step)).toEqual([0, 1, 6, 11, 16, 21]);
      for (const { step, x, y, relativeError } of full) expect([{ x, y }, relativeError]).toEqual([truth[step], 0]);
    }
  });

  const scopes = ["feature-row", "feature", "row", "image"] as const;
  const references: CacheOptions[] = [
    ...forecastingMethods.filter((method) => method !== "adaptedFemo"),
    { method: "femo", order: 3, beta: -0.3, momentumSeed: "feature", biasCorrection: "steps" },
    ...scopes.map(
      (betaPer) => ({ method: "adaptedFemo", betaPer, order: 1, beta: 0.1, gamma: 0.05, delta: 0.2 }) as const,
    ),
  ];
  test.each(references.map((cache) => [JSON.stringify(cache), cache] as const))(
    "are those that float64 arithmetic gives: %s",
    (_, cache) => {
      const rows = [walk(11, steps), walk(12, steps)] as const;
      const trajectories = made([[...rows]]);
      const method = openLoopMethod(trajectories, cache);
      const common = method.forecaster.adapt && !method.forecaster.memoryPer?.row;
      // What has a memory in common is one long feature.
      const parts = common ? [rows[0].map((x, i) => Float64Array.from([...x, ...(rows[1][i] as Float64Array)]))] : rows;
      const plan = method.full.map((full, step) => ({
        position: trajectories.positions[step] as number,
        full,
        differences: step > method.firstDifference,
      }));
      const wanted = parts.map((part) =>
        replay(method.forecaster, plan, (position) => part[steps - 1 - position] as Float64Array),
      );
      const far = rows.map((path) => principalPlane(path));
      for (const row of [0, 1]) {
        const [found] = forecastPaths(trajectories, { methods: [cache], row }).methods;
        for (const { step, full, ...miss } of found?.path ?? []) {
          if (full) continue;
          const whole = (wanted[common ? 0 : row] as Float64Array[])[step] as Float64Array;
          const forecast = common ? whole.slice(5 * row, 5 * row + 5) : whole;
          const truth = rows[row as 0 | 1][step] as Float64Array;
          const place = project(far[row] as (typeof far)[number], forecast);
          expect(miss.relativeError).toBeCloseTo(norm(difference(forecast, truth)) / norm(truth), 6);
          expect(miss.cosine).toBeCloseTo(dot(forecast, truth) / (norm(forecast) * norm(truth)), 7);
          expect(Math.abs(miss.x) - Math.abs(place.x)).toBeCloseTo(0, 7);
          expect(Math.abs(miss.y) - Math.abs(place.y)).toBeCloseTo(0, 7);
        }
      }
    },
  );

  test("grow over the horizon as each step's own errors say, up to the interval and beyond", () => {
    const trajectories = made([
      [walk(21, steps), walk(22, steps)],
      [walk(23, steps), walk(24, steps)],
    ]);
    const [grown] = errorOverHorizon(trajectories, { methods: [{ method: "newton", interval: 4 }], horizon: 7 });
    // Full steps 1, 5, 9, 13 have seven steps behind them; 17 and 21 do not, and 0 is followed by a full one.
    const wanted = [1, 5, 9, 13].flatMap((last) =>
      trajectories.trajectories.flatMap(({ image }) =>
        [0, 1].map((row) => {
          const fullSteps = [0, 1, 5, 9, 13].filter((step) => step <= last);
          const [alone] = forecastPaths(trajectories, {
            methods: [{ method: "newton", fullSteps }],
            image,
            row,
          }).methods;
          return alone?.path.slice(last + 1, last + 8).map(({ relativeError }) => relativeError) as number[];
        }),
      ),
    );
    expect(grown?.distances.map(({ distance, count }) => [distance, count])).toEqual(
      Array.from({ length: 7 }, (_, i) => [i + 1, 16]),
    );
    for (const { distance, mean, lowerQuartile, median, upperQuartile } of grown?.distances ?? []) {
      const errors = wanted.map((of) => of[distance - 1] as number).sort((p, q) => p - q);
      expect(mean).toBeCloseTo(errors.reduce((p, q) => p + q, 0) / 16, 9);
      expect(median).toBeCloseTo(((errors[7] as number) + (errors[8] as number)) / 2, 9);
      expect(lowerQuartile).toBeLessThanOrEqual(median);
      expect(upperQuartile).toBeGreaterThanOrEqual(median);
    }
  });

  test("are averaged for every combination of settings", () => {
    const trajectories = made([[walk(31, steps)], [walk(32, steps)]]);
    const grid = { interval: [3, 5], beta: [-0.2, 0, 0.3] };
    const rows = ablation(trajectories, { method: "femo", order: 1 }, grid);
    expect(rows.map(({ varied }) => varied)).toEqual(
      [3, 5].flatMap((interval) => [-0.2, 0, 0.3].map((beta) => ({ interval, beta }))),
    );
    for (const { varied, settings, relativeError, fullSteps } of rows) {
      const cache = { method: "femo", order: 1, ...varied } as CacheOptions;
      const paths = [0, 1].flatMap((image) => forecastPaths(trajectories, { methods: [cache], image }).methods);
      const errors = paths.flatMap(({ path }) => path.filter(({ full }) => !full)).map((step) => step.relativeError);
      expect(settings).toMatchObject({ method: "femo", granularity: "output", ...varied });
      expect(relativeError?.mean).toBeCloseTo(errors.reduce((p, q) => p + q, 0) / errors.length, 12);
      expect([relativeError?.count, fullSteps]).toEqual([errors.length, steps - errors.length / 2]);
    }
    const plain = ablation(trajectories, { method: "taylorSeer", order: 1 }, { interval: [3, 5] });
    expect(rows[1]?.relativeError?.mean).toBeCloseTo(plain[0]?.relativeError?.mean as number, 9); // beta 0
    expect(ablation(trajectories, "fora", { interval: [1] })[0]?.relativeError).toBeUndefined();
  });

  test("are of methods that go by what was recorded alone", async () => {
    const trajectories = made([[walk(1, steps)]]);
    const refusal = (cache: unknown) =>
      femoError("E_OPTION", async () => forecastPaths(trajectories, { methods: [cache as CacheOptions] }));
    for (const cache of ["none", "teaCache", "hindsight", "toca", null, {}, { method: "femo", errorBound: 0.1 }]) {
      expect(await refusal(cache)).toContain("expected one of fora, ");
    }
    expect(await refusal({ method: "femo", sigma: 1 })).toContain("sigma");
    expect(await refusal({ method: "femo", fullSteps: 5 })).toContain("no placement of 5");
    expect(await refusal({ method: "femo", fullSteps: [0, 99] })).toContain("found 99");
    const other = (work: () => unknown) => femoError("E_OPTION", async () => work());
    expect(await other(() => forecastPaths(trajectories, { image: 1 }))).toContain("image");
    expect(await other(() => forecastPaths(trajectories, { row: 1 }))).toContain("row");
    expect(await other(() => errorOverHorizon(trajectories, { horizon: steps }))).toContain("horizon");
    expect(await other(() => errorOverHorizon(trajectories, { horizon: steps - 1 }))).toContain("horizon");
    expect(await other(() => ablation(trajectories, "fora", { beta: [0] }))).toContain("beta");
  });
});

describe("paths of a model", async () => {
  const { pipeline } = await openTinyPipeline();
  const drawn = { classLabels: ["oak", "ibis"], seed: 7, numInferenceSteps: 12, guidanceScale: 2 } as const;
  const record = (options: object) => recordTrajectories(pipeline, { ...drawn, ...options });

  test("are what the sampler was given: it goes by them where the run went", async () => {
    const sampler = createSampler(pipeline.scheduler, { numInferenceSteps: 12 });
    const { latents } = await pipeline.generate({ ...drawn, outputType: "latent" });
    const [guided, output, x0] = await Promise.all(
      ["guided", "output", "x0"].map((level) => record({ level, keepFeatures: true, batchSize: 1 })),
    );
    const size = latents.length / 2;
    for (const [image, { rows, seed }] of (guided?.trajectories ?? []).entries()) {
      let state: SamplerState = { latent: new TorchGenerator(Number(seed)).randn([size]) };
      const [cond, uncond] = [0, 1].map((row) => output?.trajectories[image]?.rows[row]?.features);
      for (const [step, given] of (rows[0]?.features ?? []).entries()) {
        expect(x0?.trajectories[image]?.rows[0]?.features?.[step]).toEqual(sampler.denoised(step, state.latent, given));
        const summed = given.map((_, i) => 2 * (cond?.[step]?.[i] ?? 0) - (uncond?.[step]?.[i] ?? 0));
        expect(norm(difference(summed, given))).toBeLessThan(1e-5 * norm(given));
        state = sampler.step(step, state, given);
      }
      expect(state.latent).toEqual(latents.slice(image * size, (image + 1) * size));
    }
  });

  test("are plain data, with the inner products of their points", async () => {
    const recorded = await record({ level: "block", keepFeatures: true });
    const { site, dims, timesteps, positions, trajectories } = recorded;
    expect([site, dims]).toEqual(["transformer_blocks.1", [tiny.tokens, tiny.width]]);
    expect([timesteps.length, positions.length]).toEqual([12, 12]);
    for (const { gram, features } of trajectories.flatMap(({ rows }) => rows)) {
      expect(gram.flat()).toEqual(gramOf(features as Float32Array[]).flat());
    }
    const bare = await record({ level: "block" });
    const kept = trajectories.map(({ rows, ...rest }) => ({ ...rest, rows: rows.map(({ gram }) => ({ gram })) }));
    expect(JSON.parse(JSON.stringify(bare))).toEqual({ ...bare, trajectories: kept });
    expect(bare.trajectories.map(({ subject, seed }) => [subject, seed])).toEqual([
      ["oak", 7],
      ["ibis", 8],
    ]);
  });

  test.each(["output", "module", "block"])("at the level %s show methods what a run shows them", async (level) => {
    const cache = {
      method: "adaptedFemo",
      interval: 1,
      granularity: level,
      order: 1,
      beta: 0.1,
      gamma: 0.03,
      delta: 0.1,
    } as const;
    const { report } = await pipeline.generate({ ...drawn, cache, outputType: "latent" });
    const recorded = await record({ level });
    const index = pipeline.sites(level).indexOf(recorded.site);
    const method = openLoopMethod(recorded, cache);
    const walks = recorded.trajectories.map((path) => [...openLoop(method, path, recorded.positions)]);
    for (const { step, forecastError, beta } of report.batches[0]?.steps ?? []) {
      if (step === 0) continue;
      const squares = walks.flatMap((known, image) =>
        (known[step - 1]?.forecast(step) ?? []).map((weights, row) => {
          const gram = recorded.trajectories[image]?.rows[row]?.gram as number[][];
          const off = weights.map((w, i) => w - +(i === step));
          return (
            off.reduce((s, a, i) => s + off.reduce((t, b, j) => t + a * b * (gram[i]?.[j] ?? 0), 0), 0) /
            (gram[step]?.[step] ?? 1)
          );
        }),
      );
      const wanted = Math.sqrt(squares.reduce((a, b) => a + Math.max(0, b), 0) / squares.length);
      expect(Math.abs((forecastError?.byFeature[index] ?? Number.NaN) - wanted)).toBeLessThan(2e-3);
      const betas = walks.flatMap((known) => known[step]?.betas ?? []);
      if (level === "output") expect(beta?.mean).toBeCloseTo(betas.reduce((a, b) => a + b, 0) / betas.length, 6);
    }
    expect(walks.flatMap((known) => known.at(-1)?.betas ?? [])).not.toContain(0.1); // they have moved
  });

  test("are of a feature that the model has", async () => {
    expect(await femoError("E_OPTION", () => record({ level: "deep" }))).toContain(
      "expected one of module, block, stack, output, x0, guided",
    );
    expect(await femoError("E_OPTION", () => record({ level: "block", site: "blocks.9" }))).toContain(
      "expected one of transformer_blocks.0, transformer_blocks.1",
    );
    expect(await femoError("E_OPTION", () => record({ level: 3 }))).toContain("level");
    expect(await femoError("E_OPTION", () => record({ numImagesPerPrompt: 0 }))).toContain("numImagesPerPrompt");
    expect(await femoError("E_OPTION", () => record({ steps: 3 }))).toContain("steps");
    const many = { keepFeatures: true, numInferenceSteps: 50, numImagesPerPrompt: 4000, batchSize: 1 };
    expect(await femoError("E_OPTION", () => record(many))).toContain("expected at most 2147483648");
  });

  test("of a few of the model's examples unless it is said which, and the end when it is told to", async () => {
    const { trajectories } = await recordTrajectories(pipeline, { numInferenceSteps: 2 });
    expect(trajectories.map(({ subject }) => subject)).toEqual(pipeline.examples.slice(0, 4));
    const stopping = new AbortController();
    const stopped = record({ signal: stopping.signal, onStep: () => stopping.abort("enough") });
    await expect(stopped).rejects.toBe("enough");
  });
});
