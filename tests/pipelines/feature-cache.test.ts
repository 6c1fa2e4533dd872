import { beforeAll, describe, expect, test } from "vitest";
import { adaptedFemo, type Forecaster, femo, fora, newton, taylorSeer } from "../../src/forecasts/index.js";
import { type Granularity, granularities, names, traceForecast } from "../../src/graph/index.js";
import { FeatureCache } from "../../src/pipelines/feature-cache.js";
import { ModelRunner } from "../../src/pipelines/model-runner.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { goldenFolder, type OpenModel, openModel } from "../models/tiny.js";
import { engineForTests, floats, integers, noise, numbers, relativeError } from "../runtime/helpers.js";

const engine = engineForTests();
let tiny: OpenModel;
let runner: ModelRunner;
beforeAll(async () => {
  tiny = await openModel(engine, `${goldenFolder}/tiny-a`);
  runner = new ModelRunner(tiny.model, tiny.checkpoint, engine);
});

function memoized<K, V>(make: (key: K) => V): (key: K) => V {
  const made = new Map<K, V>();
  return (key) => {
    const value = made.get(key) ?? make(key);
    made.set(key, value);
    return value;
  };
}

interface Options {
  readonly forecaster: Forecaster;
  readonly granularity: Granularity;
  readonly measure: boolean;
}

/** Steps of a batch, every one with a sample of its own; position counts down from 20. */
async function walk(cache: FeatureCache, request: string, images: readonly number[], pattern: string, seed: number) {
  const { granularity } = cache.graphs.full as { granularity: Granularity };
  const sites = runner.features(granularity);
  await runner.condition(request, {
    timestep: floats([3], [900, 500, 100]),
    class_label: integers([3], [0, 3, 7]),
  });
  await cache.start(images);
  const steps: { full: boolean; position: number; feeds: Parameters<OpenModel["run"]>[1]; output: number[] }[] = [];
  const truths: HostTensor[][] = [];
  const errors: (number | undefined)[] = [];
  for (const [i, kind] of [...pattern].entries()) {
    const [full, position] = [kind === "F", 20 - i];
    const graph = cache.graphs[full ? "full" : "forecast"];
    const dims = [images.length, ...tiny.model.sampleShape];
    const sample = { dims, data: noise(dims, seed + i).data as Float32Array };
    const pair = BigInt64Array.from(images, (_, row) => BigInt((i + row) % 3));
    const own = runner.stepFeeds(request, graph, sample, pair);
    const { outputs } = await runner.run(graph, {
      feeds: { ...own, ...(full ? {} : cache.combine(position)) },
      fetch: [names.output, ...(full ? sites.map(({ name }) => names.feature(name)) : [])],
      hold: full ? cache.capture() : {},
    });
    if (full) {
      truths.push(sites.map(({ name }) => outputs[names.feature(name)] as HostTensor));
      errors.push((await cache.learn({ position, differences: i > 0 })).forecast?.relativeError);
    }
    const feeds = {
      sample: { dtype: "float32" as const, ...sample },
      pair: integers([images.length], Array.from(pair, Number)),
    };
    steps.push({ full, position, feeds, output: numbers(outputs[names.output]) });
  }
  return { steps, truths, errors, sites };
}

/** What the forecaster makes of the true features, in float64: for each forecast step, F^ of every feature. */
function reference(forecaster: Forecaster, images: readonly number[], walked: Awaited<ReturnType<typeof walk>>) {
  const { steps, truths, sites } = walked;
  const mix = (weights: readonly number[], rows: readonly ArrayLike<number>[]): number[] =>
    Array.from({ length: (rows[0] as ArrayLike<number>).length }, (_, j) =>
      rows.reduce((sum, row, i) => sum + (weights[i] as number) * (row[j] as number), 0),
    );
  const forecasts: number[][][] = steps.map(() => sites.map(() => []));
  for (const [f, { elements }] of sites.entries()) {
    for (const [row, image] of images.entries()) {
      let memory = forecaster.start(image);
      let state: number[][] = Array.from({ length: forecaster.history + forecaster.averages }, () =>
        new Array<number>(elements).fill(0),
      );
      let seen = 0;
      for (const [i, { full, position }] of steps.entries()) {
        const weights = forecaster.combine(memory, position);
        if (!full) {
          forecasts[i]?.[f]?.push(...mix(weights as number[], state));
          continue;
        }
        const all = truths[seen++]?.[f]?.data as Float32Array;
        const truth = Array.from(all.subarray(row * elements, (row + 1) * elements));
        const stacked = [...state, truth];
        const dot = (a: number[], b: number[]) => a.reduce((sum, x, j) => sum + x * (b[j] as number), 0);
        if (weights && forecaster.adapt) {
          memory = forecaster.adapt(
            memory,
            stacked.map((a) => stacked.map((b) => dot(a, b))),
            weights,
          );
        }
        const update = forecaster.update(memory, { position, differences: i > 0 });
        memory = update.memory;
        state = [truth, ...state.slice(0, forecaster.history - 1), ...update.rows.map((u) => mix(u, stacked))];
      }
    }
  }
  return forecasts;
}

/** A forecast graph with its tables. One for each level: every new one would be a session of its own. */
const graphAndTables = memoized(async (granularity: Granularity) => ({
  graph: traceForecast(tiny.model, granularity, { history: 1, averages: 0 }),
  tables: await tiny.tables([900, 500, 100], [0, 3, 7]),
}));

/** The forecast graph fed with forecasts made elsewhere. */
async function outputOf(granularity: Granularity, forecasts: readonly number[][], feeds: object, samples: number) {
  const { graph, tables } = await graphAndTables(granularity);
  const state = Object.fromEntries(
    graph.features.map(({ name, elements }, f) => [
      names.history(name, 0),
      floats([samples, 1, elements], forecasts[f] as number[]),
    ]),
  );
  const combine = floats([graph.features.length, samples, 1, 1], new Array(graph.features.length * samples).fill(1));
  const { output } = await tiny.run(graph, { ...tables, ...feeds, ...state, combine });
  return numbers(output);
}

const forecasters: [string, Forecaster][] = [
  ["FORA", fora()],
  ["TaylorSeer 2", taylorSeer(2) as Forecaster],
  ["Newton 3", newton(3) as Forecaster],
  ["FEMO 1", femo({ order: 1, beta: 0.3, seed: "feature" }) as Forecaster],
  ["FEMO 2", femo({ order: 2, beta: [0.2, -0.3] }) as Forecaster],
  ["Adapted-FEMO 2", adaptedFemo({ order: 2, beta: -0.1, gamma: 0.05, delta: 0.2 }) as Forecaster],
];
const patterns = "FfFFfffFffFfFFff";

describe.each(granularities)("the state in the engine equals float64 arrays, at '%s'", (granularity) => {
  test.each(forecasters)("%s, over batches of other and of the same size", async (name, forecaster) => {
    const measure = Boolean(forecaster.adapt) || granularity === "stack";
    const options: Options = { forecaster, granularity, measure };
    const request = `${granularity} ${name}`;
    const cache = new FeatureCache(engine, runner, request, options);
    for (const [seed, images] of [
      [0, 1, 0, 1],
      [2, 2],
      [3, 3],
    ].entries()) {
      const walked = await walk(cache, request, images, patterns, 100 * seed);
      const wanted = reference(forecaster, images, walked);
      for (const [i, { full, feeds, output }] of walked.steps.entries()) {
        if (full) continue;
        const same = await outputOf(granularity, wanted[i] as number[][], feeds, images.length);
        expect(relativeError(output, same), `batch ${seed}, step ${i}`).toBeLessThan(2e-5);
      }
      expect(walked.errors.map((error) => error !== undefined)).toEqual(walked.errors.map((_, i) => measure && i > 0));
    }
    await cache.free();
    await expect(runner.run(cache.graphs.forecast, { feeds: cache.combine(0), fetch: [names.output] })).rejects.toThrow(
      "no tensor is held",
    );
  });
});

describe("bytes", () => {
  const bytes = (forecaster: Forecaster, measure: boolean) =>
    new FeatureCache(engine, runner, "bytes", { forecaster, granularity: "module", measure }).bytes(2);

  test("count every buffer: state, one slot more where the oldest is still read, one spare for the averages", () => {
    const sites = runner.features("module");
    const elements = sites[0]?.elements as number;
    const tensor = 4 * 2 * elements;
    const all = tensor * sites.length;
    expect(bytes(fora(), false)).toBe(all);
    expect(bytes(fora(), true)).toBe(2 * all);
    expect(bytes(taylorSeer(2) as Forecaster, false)).toBe(3 * all);
    expect(bytes(newton(2) as Forecaster, true)).toBe(4 * all);
    expect(bytes(femo({ order: 2, beta: 0 }) as Forecaster, true)).toBe(5 * all + 2 * tensor);
  });
});
