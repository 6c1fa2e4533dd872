import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { DiffusionPipeline, type GenerateOptions, type MultistepSolver } from "../../src/index.js";
import { multistepSolver } from "../../src/samplers/index.js";
import {
  type FitSolverOptions,
  fitSolver,
  fittedSolverOf,
  type SolverFitState,
  type TargetStore,
} from "../../src/studies/index.js";
import { dampedStep, meanLogError, normalEquations, slopeOf } from "../../src/studies/solver-fit/gauss-newton.js";
import { solverParameters } from "../../src/studies/solver-fit/parameters.js";
import { startingSolvers } from "../../src/studies/solver-fit/start.js";
import { endOf, sharedRuns, Walker } from "../../src/studies/solver-fit/walk.js";
import { relativeError } from "../runtime/helpers.js";
import { openTinyPipeline, tinyPipeline } from "../tiny-pipeline.js";
import { femoError } from "../weights/helpers.js";

const { pipeline } = await openTinyPipeline();
const [classLabels, numInferenceSteps] = [["oak", "ibis"], 20];
const deis = { sampler: "deis", solverOrder: 3, finalSigmasType: "zero" } as const;

describe("solvers to begin with", () => {
  const starts = startingSolvers(pipeline, 5, numInferenceSteps);

  test("are hindsight and the published samplers whose steps are linear, of as many runs", () => {
    const names = starts.map(({ name }) => name);
    expect(names[0]).toBe("hindsight");
    for (const sampler of ["DDIM", "DPM-Solver++", "UniPC", "DEIS"]) {
      expect(names.filter((name) => name.startsWith(sampler)).length).toBeGreaterThan(2);
    }
    expect(names.filter((name) => /PNDM|Euler/.test(name))).toEqual([]);
    for (const { solver } of starts) expect(multistepSolver(solver).timesteps).toHaveLength(5);
  });

  const tabled: [string, GenerateOptions][] = [
    ["DDIM, trailing", { sampler: "ddim", timestepSpacing: "trailing" }],
    ["DPM-Solver++, solverOrder 2, lambda", { sampler: "dpm-solver++", timestepSpacing: "lambda" }],
    ["UniPC, solverOrder 2, leading", { sampler: "unipc", timestepSpacing: "leading" }],
    ["DEIS, solverOrder 3, finalSigmasType zero, linspace", { sampler: deis, timestepSpacing: "linspace" }],
  ];
  test.each(tabled)("as a table %s draws what it draws as itself", async (name, request) => {
    const { solver } = starts.find((start) => start.name === name) as (typeof starts)[number];
    const same = { classLabels, seed: 4, outputType: "latent" } as const;
    const own = await pipeline.generate({ ...same, ...request, numInferenceSteps: 5 });
    const drawn = await pipeline.generate({ ...same, sampler: solver });
    expect(relativeError(drawn.latents, own.latents)).toBeLessThan(1e-4);
  });
});

describe("the numbers that a fit may change", () => {
  const start = startingSolvers(pipeline, 6, numInferenceSteps)[0]?.solver as MultistepSolver;

  test.each([1, 2, 6])("come back from the solver that they make, with %i free weights a row", (history) => {
    const parameters = solverParameters(start, history, 100);
    const values = parameters.of(start);
    expect(values).toHaveLength(parameters.count);
    expect(parameters.steps).toHaveLength(parameters.count);
    const { timesteps, levelTimesteps, table } = parameters.solver(values);
    expect(timesteps).toEqual(start.timesteps);
    expect(levelTimesteps).toEqual(start.timesteps);
    for (const [i, row] of table.entries()) {
      row.forEach((weight, j) => {
        expect(weight).toBeCloseTo(start.table[i]?.[j] as number, 9);
      });
    }
  });

  test.each([false, true])("whatever they are, make a solver (flow: %s)", (isFlow) => {
    const flow = { ...start, timesteps: [1, 0.9, 0.7, 0.4, 0.2, 0.1] };
    const parameters = solverParameters(isFlow ? flow : start, 3, isFlow ? undefined : 100);
    const far = fc.double({ min: -1e4, max: 1e4, noNaN: true });
    fc.assert(
      fc.property(fc.array(far, { minLength: parameters.count, maxLength: parameters.count }), (values) => {
        const { timesteps, levelTimesteps = [], table } = parameters.solver(values);
        for (const list of [timesteps, levelTimesteps]) {
          expect(list).toHaveLength(6);
          expect(list[0]).toBeLessThanOrEqual(isFlow ? 1 : 99);
          list.forEach((t, i) => {
            expect(t).toBeGreaterThanOrEqual(isFlow ? 1e-4 : 0);
            if (i > 0) expect(t).toBeLessThan(list[i - 1] as number);
          });
        }
        if (!isFlow) expect(timesteps.every(Number.isInteger)).toBe(true);
        for (const row of table) expect(Math.abs(row.reduce((a, b) => a + b, 0) - 1)).toBeLessThan(1e-6);
      }),
    );
  });
});

describe("a step of Gauss-Newton", () => {
  // Two points in three dimensions that depend on two parameters linearly: x = A p + b.
  const slopes = [
    [1, 2, 0, 0, 1, 1],
    [0, 1, -1, 2, 0, 1],
  ] as const;
  const at = (p: readonly number[]): Float32Array =>
    Float32Array.from(
      { length: 6 },
      (_, k) => (slopes[0][k] as number) * (p[0] as number) + (slopes[1][k] as number) * (p[1] as number),
    );
  const problem = { targets: at([3, -2]), size: 3 };
  const slope = (there: Float32Array, step: number) => slopeOf(at([0, 0]), there, step);

  test("finds what is linear at once", () => {
    const equations = normalEquations(at([0, 0]), [slope(at([0.5, 0]), 0.5), slope(at([0, 0.25]), 0.25)], problem);
    const step = dampedStep(equations, 0) as number[];
    expect(step[0]).toBeCloseTo(3, 5);
    expect(step[1]).toBeCloseTo(-2, 5);
    expect(meanLogError(at(step), problem)).toBeLessThan(meanLogError(at([2.9, -2]), problem));
  });

  test("is shorter with damping, and leaves alone what has no effect", () => {
    const slopes = [at([1, 0]), at([0, 1]), at([0, 0])].map((there) => slope(there, 1));
    const equations = normalEquations(at([0, 0]), slopes, problem);
    const [whole, damped] = [dampedStep(equations, 0), dampedStep(equations, 10)] as [number[], number[]];
    expect(Math.hypot(...damped)).toBeLessThan(Math.hypot(...whole));
    expect(whole[2]).toBeCloseTo(0, 6);
  });

  test("one point whose slopes are out of all proportion does not decide for the others", () => {
    // One parameter, points of one dimension: five want it at 2, and the last, a thousand times as steep, a bit below 0.
    const slopes = [1, 1.2, 0.9, 1.1, 0.8, 1000];
    const wanted = Float32Array.from(slopes, (slope, i) => slope * (i < 5 ? 2 : -0.01));
    const step = (points: number): number => {
      const here = new Float32Array(points);
      const equations = normalEquations(here, [Float32Array.from(slopes.slice(0, points))], {
        targets: wanted.subarray(0, points),
        size: 1,
      });
      return (dampedStep(equations, 0) as number[])[0] as number;
    };
    expect(step(5)).toBeCloseTo(2, 5);
    expect(step(6)).toBeGreaterThan(0.5);
  });

  test("a point that is far off weighs no more than one that is near", () => {
    const log = (offset: number) =>
      meanLogError(Float32Array.of(1, offset), { targets: Float32Array.of(0, 0), size: 1 });
    expect(log(100) - log(10)).toBeCloseTo(log(10) - log(1), 6);
  });
});

describe("a walk", () => {
  const { solver } = startingSolvers(pipeline, 4, numInferenceSteps)[0] as { solver: MultistepSolver };
  /** The solver with other weights at one step. */
  const weighted = (step: number): MultistepSolver => ({
    ...solver,
    table: solver.table.map((row, i) => row.map((x, j) => (i === step && j < 2 ? x + 0.1 - 0.2 * j : x))),
  });
  const moved = (place: number) => solver.timesteps.map((t, i) => (i === place ? t - 3 : t));
  const told = (place: number) => ({ ...solver, timesteps: moved(place), levelTimesteps: solver.timesteps });
  const levelled = (place: number) => ({ ...solver, levelTimesteps: moved(place) });
  const timed = { ...solver, timesteps: moved(2) };

  test("shares the runs before which nothing differs", () => {
    expect(sharedRuns(solver, solver)).toBe(4);
    expect([1, 2, 3].map((step) => sharedRuns(weighted(step), solver))).toEqual([2, 3, 4]);
    expect(sharedRuns(timed, solver)).toBe(2);
    expect([0, 1, 3].map((place) => sharedRuns(told(place), solver))).toEqual([0, 1, 3]);
    // What is noise at first is so whatever the solver takes it for.
    expect([0, 1, 3].map((place) => sharedRuns(levelled(place), solver))).toEqual([1, 1, 3]);
  });

  test("ends to the bit where a request with its solver does, whether runs are taken from another or not", async () => {
    const request = { classLabels, seed: 4, batchSize: 1 };
    const walker = await Walker.of(pipeline, request);
    const here = await walker.walk(solver);
    for (const other of [solver, weighted(2), weighted(3), timed, told(1), levelled(0)]) {
      let runs = 0;
      const there = await walker.walk(other, () => runs++, here);
      expect(runs).toBe(4 - sharedRuns(other, solver));
      const { latents } = await pipeline.generate({ ...request, sampler: other, outputType: "latent" });
      expect(endOf(there)).toEqual(latents);
    }
  });
});

describe("a fit", () => {
  const options = { classLabels, fullSteps: 3, images: 4, heldOut: 4, target: "reference", numInferenceSteps } as const;
  const states: SolverFitState[] = [];
  const fitting = fitSolver(pipeline, {
    ...options,
    iterations: 3,
    guidanceScales: [1, 3],
    onState: (state) => states.push(state),
  });

  test("comes nearer to the images of many steps", async () => {
    const { state } = await fitting;
    expect(state.errors[1]).toBeLessThan(state.errors[0] - 0.1);
    expect(multistepSolver(state.solver).timesteps).toHaveLength(3);
  });

  test("that is done already is judged at once, and nothing is drawn to fit on", async () => {
    const { state, heldOut } = await fitting;
    const phases = new Set<string>();
    const again = await fitSolver(pipeline, {
      ...options,
      ...{ iterations: 3, guidanceScales: [1, 3], state: { ...state, iteration: 3 } },
      onProgress: ({ phase }) => phases.add(phase),
    });
    expect([...phases]).toEqual(["held-out targets", "held-out"]);
    expect(again.heldOut).toEqual(heldOut);
  });

  test("is judged on other images, and says at which guidance it is better", async () => {
    const fit = await fitting;
    expect(fit.heldOut.map(({ guidanceScale }) => guidanceScale)).toEqual([1.5, 1, 3]);
    expect(fit.kept).toBe(fit.heldOut[0].fitted.mean > fit.heldOut[0].start.mean);
    const { guidanceScale, measured, timesteps } = fittedSolverOf(fit);
    expect(guidanceScale[0]).toBeLessThanOrEqual(1.5);
    expect(guidanceScale[1]).toBeGreaterThanOrEqual(1.5);
    expect(measured).toMatchObject({ target: "reference", numInferenceSteps, images: 4, guidanceScale: 1.5 });
    expect(timesteps).toEqual((fit.kept ? fit.state.solver : fit.state.start.solver).timesteps);
  });

  test("draws what it is to come near to once, for fits of other runs too, and says the same", async () => {
    const store = new Map<string, Uint8Array>();
    const targets: TargetStore = {
      get: async (key) => store.get(key),
      set: async (key, bytes) => void store.set(key, Uint8Array.from(bytes)),
    };
    const phases = async (changed: Partial<FitSolverOptions>) => {
      const seen = new Set<string>();
      const fit = await fitSolver(pipeline, {
        ...{ ...options, targets, iterations: 1, guidanceScales: [3], ...changed },
        onProgress: ({ phase }) => seen.add(phase),
      });
      return { fit, targets: [...seen].filter((phase) => phase.includes("targets")) };
    };
    const first = await phases({});
    expect(first.targets).toEqual(["targets", "held-out targets"]);
    expect(store.size).toBe(4 + 2 * 4); // held-out ones at two guidance scales
    const again = await phases({});
    expect(again.targets).toEqual([]);
    expect(again.fit).toEqual(first.fit);
    expect((await phases({ fullSteps: 4, batchSize: 3 })).targets).toEqual([]);
    // What is drawn otherwise, or of another seed, is not what was kept.
    expect((await phases({ numInferenceSteps: 19 })).targets).toEqual(["targets", "held-out targets"]);
    expect((await phases({ images: 6 })).targets).toEqual(["targets"]);
    expect((await phases({ seed: 2, images: 2, heldOut: 2 })).targets).toEqual([]);
    expect((await phases({ seed: 1, images: 2, heldOut: 2 })).targets).toEqual(["targets", "held-out targets"]);
  });

  test("goes on from a state as if it had not stopped", async () => {
    const whole = await fitting;
    const [begun, first] = states as [SolverFitState, SolverFitState];
    expect([begun.iteration, first.iteration]).toEqual([0, 1]);
    expect(begun.solver).toEqual(begun.start.solver);
    const state = JSON.parse(JSON.stringify(first)) as SolverFitState;
    const resumed = await fitSolver(pipeline, { ...options, iterations: 3, state });
    expect(resumed.state).toEqual(whole.state);
  });

  test("refuses what is no state, or of other runs, before anything is drawn", async () => {
    const [first] = states as [SolverFitState];
    expect(
      await femoError("E_OPTION", () => fitSolver(pipeline, { ...options, state: {} as SolverFitState })),
    ).toContain("state");
    const other = await femoError("E_OPTION", () => fitSolver(pipeline, { ...options, fullSteps: 4, state: first }));
    expect(other).toContain("expected 4 runs");
    expect(await femoError("E_OPTION", () => fitSolver(pipeline, { ...options, fullSteps: 1 }))).toContain("fullSteps");
  });

  test("stops when it is told to", async () => {
    const stopping = new AbortController();
    const stopped = fitSolver(pipeline, {
      ...options,
      signal: stopping.signal,
      onProgress: () => stopping.abort("enough"),
    });
    await expect(stopped).rejects.toBe("enough");
  });
});

describe("a model with fitted solvers", async () => {
  const { folder, remove } = await tinyPipeline();
  const solver = startingSolvers(pipeline, 3, numInferenceSteps)[0]?.solver as MultistepSolver;
  const psnr = { mean: 30, median: 31, tenthPercentile: 20 };
  const measured = {
    target: "converged",
    numInferenceSteps: 100,
    images: 8,
    guidanceScale: 1.5,
    psnr,
    psnrOfStart: psnr,
  };
  const { sampler: _, ...table } = solver;
  const entry = { ...table, guidanceScale: [1.5, 2], measured };
  const write = (content: unknown) => writeFileSync(join(folder, "solvers.json"), JSON.stringify(content));
  write([entry]);
  const fitted = await DiffusionPipeline.fromPretrained(folder);
  afterAll(async () => {
    await fitted.close();
    remove();
  });
  const draw = (options: object) => fitted.generate({ classLabels, seed: 2, outputType: "latent", ...options });

  test("draws with one as if it were the sampler, whatever the number of steps", async () => {
    const wanted = await draw({ sampler: solver });
    const found = await draw({ cache: { method: "calibrated", fullSteps: 3 }, numInferenceSteps: 40 });
    expect(found.latents).toEqual(wanted.latents);
    expect(found.report).toMatchObject({
      cache: { method: "calibrated", fullSteps: 3 },
      sampler: "multistep",
      numInferenceSteps: 3,
      fullSteps: [
        [0, 1, 2],
        [0, 1, 2],
      ],
    });
    expect(found.report.warnings).toEqual(wanted.report.warnings);
  });

  test("says where a guidance scale is beyond what was tried", async () => {
    const { report } = await draw({ cache: { method: "calibrated", fullSteps: 3 }, guidanceScale: 4 });
    expect(report.warnings.join()).toContain("guidance 1.5 to 2, not at 4");
  });

  test("that were fitted to different images draws with the one that is asked for, or that of the converged", async () => {
    const { solver: other } = startingSolvers(pipeline, 3, numInferenceSteps)[1] as { solver: MultistepSolver };
    const { sampler: _, ...rest } = other;
    write([{ ...entry, ...rest, measured: { ...measured, target: "reference" } }, entry]);
    const both = await DiffusionPipeline.fromPretrained(folder);
    const drawn = async (sampling: object) =>
      (await both.generate({ classLabels, seed: 2, outputType: "latent", ...sampling })).latents;
    const cached = (target?: "converged" | "reference") =>
      drawn({ cache: { method: "calibrated", fullSteps: 3, ...(target && { target }) } });
    try {
      expect(await cached("reference")).toEqual(await drawn({ sampler: other }));
      expect(await cached("converged")).toEqual(await drawn({ sampler: solver }));
      expect(await cached()).toEqual(await cached("converged"));
    } finally {
      await both.close();
      write([entry]);
    }
    const options = { cache: { method: "calibrated", fullSteps: 3, target: "reference" } };
    const message = await femoError("E_OPTION", () => draw(options));
    expect(message).toContain("expected a model to which solvers were fitted to reference images, found 3");
  });

  test("has none of other runs", async () => {
    const message = await femoError("E_OPTION", () => draw({ cache: { method: "calibrated", fullSteps: 9 } }));
    expect(message).toContain("expected one of 3, found 9");
    const none = await femoError("E_OPTION", () => pipeline.generate({ classLabels, cache: "calibrated" }));
    expect(none).toContain("femo calibrate solver");
  });

  test.each([
    ["no list", {}],
    ["a table that does not fit", [{ ...entry, table: [[1]] }]],
    ["an unknown field", [{ ...entry, extra: 1 }]],
    ["weights that do not sum to 1", [{ ...entry, table: table.table.map((row) => row.map((x) => x + 1)) }]],
  ])("is not opened with %s", async (_, content) => {
    write(content);
    try {
      expect(await femoError("E_CONFIG", () => DiffusionPipeline.fromPretrained(folder))).toContain("solvers.json");
    } finally {
      write([entry]);
    }
    expect(readFileSync(join(folder, "solvers.json"), "utf8")).toContain("timesteps");
  });
});
