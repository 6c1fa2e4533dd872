import { beforeAll, describe, expect, test } from "vitest";
import { Backbone } from "../../src/denoising/backbone.js";
import { measuredForecast } from "../../src/denoising/coefficients.js";
import { Conditioning } from "../../src/denoising/conditioning.js";
import { type FeatureCache, FeatureState } from "../../src/denoising/feature-state.js";
import { adaptedFemo, type Forecaster, femo, fora, newton, taylorSeer } from "../../src/methods/forecasts/index.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { type Cut, graphNames, traceCut } from "../../src/tracing/index.js";
import { goldenFolder, type OpenModel, openModel } from "../models/tiny.js";
import { engineForTests, floats, integers, noise, numbers, relativeError } from "../runtime/helpers.js";

const engine = engineForTests();
let tiny: OpenModel;
let backbone: Backbone;
beforeAll(async () => {
  tiny = await openModel(engine, `${goldenFolder}/tiny-a`);
  backbone = new Backbone(tiny.model, tiny.checkpoint, new Sessions(engine, Number.POSITIVE_INFINITY));
});

function memoized<K, V>(make: (key: K) => V): (key: K) => V {
  const made = new Map<K, V>();
  return (key) => {
    const value = made.get(key) ?? make(key);
    made.set(key, value);
    return value;
  };
}

const levelOf = ({ capture }: FeatureCache): string => (capture.capture as { level: string }).level;

/** Steps of a batch, every one with a sample of its own; position counts down from 20. */
async function walk(cache: FeatureCache, request: string, images: readonly number[], pattern: string, seed: number) {
  const { forecaster, capture } = cache;
  const sites = backbone.cut(capture).captured;
  const conditioning = await Conditioning.compute(backbone, request, [900, 500, 100], {
    count: 3,
    feeds: { class_label: integers([3], [0, 3, 7]) },
  });
  const state = await FeatureState.start(backbone, request, cache, images);
  const steps: { full: boolean; position: number; feeds: Parameters<OpenModel["run"]>[1]; output: number[] }[] = [];
  const truths: HostTensor[][] = [];
  const errors: (number | undefined)[] = [];
  for (const [i, kind] of [...pattern].entries()) {
    const [full, position] = [kind === "F", 20 - i];
    const { recent: history, averages } = forecaster;
    const cut: Cut = full ? capture : { forecast: { level: levelOf(cache) }, state: { history, averages } };
    const dims = [images.length, ...backbone.sampleDims({})];
    const sample = noise(dims, seed + i);
    const rows = Array.from(images, (_, row) => (i + row) % 3);
    const { outputs } = await backbone.run(cut, {
      feeds: {
        ...(levelOf(cache) !== "output" || full ? { sample } : {}),
        ...conditioning.feeds(cut, i % 3, rows, {}),
        ...(full ? {} : state.combine(position, backbone.cut(cut).forecasts)),
      },
      fetch: [graphNames.output, ...(full ? sites.map(({ name }) => graphNames.feature(name)) : [])],
      hold: full ? state.capture() : {},
    });
    if (full) {
      truths.push(sites.map(({ name }) => outputs[graphNames.feature(name)] as HostTensor));
      const { squares } = await state.learn({ position, differences: i > 0 });
      errors.push(squares && measuredForecast(squares, [...images.keys()]).relativeError);
    }
    const pair = rows.map((row) => 3 * (i % 3) + row);
    const feeds = { sample, pair: integers([images.length], pair) };
    steps.push({ full, position, feeds, output: numbers(outputs[graphNames.output]) });
  }
  return { steps, truths, errors, sites, state };
}

/** What the forecaster makes of the true features, in float64: for each forecast step, F^ of every feature. */
function reference(forecaster: Forecaster, images: readonly number[], walked: Awaited<ReturnType<typeof walk>>) {
  const { steps, truths, sites } = walked;
  const mix = (weights: readonly number[], rows: readonly ArrayLike<number>[]): number[] =>
    Array.from({ length: (rows[0] as ArrayLike<number>).length }, (_, j) =>
      rows.reduce((sum, row, i) => sum + (weights[i] as number) * (row[j] as number), 0),
    );
  const forecasts: number[][][] = steps.map(() => sites.map(() => []));
  for (const [f, site] of sites.entries()) {
    const elements = site.elements as number;
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

const tables = () => tiny.tables([900, 900, 900, 500, 500, 500, 100, 100, 100], [0, 3, 7, 0, 3, 7, 0, 3, 7]);

/** A forecast graph with its tables. One for each level: every new one would be a session of its own. */
const graphAndTables = memoized(async (granularity: string) => ({
  graph: traceCut(tiny.model, { forecast: { level: granularity }, state: { history: 1, averages: 0 } }),
  tables: await tables(),
}));

/** The forecast graph fed with forecasts made elsewhere. */
async function outputOf(granularity: string, forecasts: readonly number[][], feeds: object, samples: number) {
  const { graph, tables } = await graphAndTables(granularity);
  const state = Object.fromEntries(
    graph.forecasts.map(({ name, elements }, f) => [
      graphNames.history(name, 0),
      floats([samples, 1, elements as number], forecasts[f] as number[]),
    ]),
  );
  const combine = floats([graph.forecasts.length, samples, 1, 1], new Array(graph.forecasts.length * samples).fill(1));
  const { output } = await tiny.run(graph, { ...tables, ...feeds, ...state, combine });
  return numbers(output);
}

const forecasters: [string, Forecaster][] = [
  ["FORA", fora()],
  ["TaylorSeer 2", taylorSeer(2) as Forecaster],
  ["Newton 3", newton(3) as Forecaster],
  ["FEMO 1", femo({ order: 1, beta: 0.3, momentumSeed: "feature" }) as Forecaster],
  ["FEMO 2", femo({ order: 2, beta: [0.2, -0.3] }) as Forecaster],
  ["Adapted-FEMO 2", adaptedFemo({ order: 2, beta: -0.1, gamma: 0.05, delta: 0.2 }) as Forecaster],
];
const patterns = "FfFFfffFffFfFFff";

describe.each(["module", "block", "stack", "output"])(
  "the state in the engine equals float64 arrays, at '%s'",
  (level) => {
    test.each(forecasters)("%s, over batches of other and of the same size", async (name, forecaster) => {
      const cache = {
        forecaster,
        capture: { capture: { level } },
        measure: Boolean(forecaster.adapt) || level === "stack",
      };
      const request = `${level} ${name}`;
      for (const [seed, images] of [
        [0, 1, 0, 1],
        [2, 2],
        [3, 3],
      ].entries()) {
        const walked = await walk(cache, request, images, patterns, 100 * seed);
        const wanted = reference(forecaster, images, walked);
        for (const [i, { full, feeds, output }] of walked.steps.entries()) {
          if (full) continue;
          const same = await outputOf(level, wanted[i] as number[][], feeds, images.length);
          expect(relativeError(output, same), `batch ${seed}, step ${i}`).toBeLessThan(2e-5);
        }
        expect(walked.errors.map((error) => error !== undefined)).toEqual(
          walked.errors.map((_, i) => cache.measure && i > 0),
        );
        await walked.state.free();
        const { recent: history, averages } = forecaster;
        const forecast = { forecast: { level }, state: { history, averages } };
        const again = backbone.run(forecast, {
          feeds: walked.state.combine(0, backbone.cut(forecast).forecasts),
          fetch: [graphNames.output],
        });
        await expect(again).rejects.toThrow(/held|missing/);
      }
    });
  },
);

test.each(forecasters)("%s: samples taken out of a batch go on as they would have in it", async (name, forecaster) => {
  const cache = { forecaster, capture: { capture: { level: "module" } }, measure: true };
  const images = [0, 1, 0, 1];
  const { state } = await walk(cache, `whole ${name}`, images, "FfFF", 7);
  const rows = [1, 3];
  const part = await state.select(`part ${name}`, rows);
  const { recent: history, averages } = forecaster;
  const cut = { forecast: { level: "module" }, state: { history, averages } };
  const tables = await tiny.tables([900], [3]);
  const sample = noise([4, ...backbone.sampleDims({})], 3);
  const size = sample.data.length / 4;
  const half = floats(
    [2, ...backbone.sampleDims({})],
    rows.flatMap((row) => [...(sample.data as Float32Array).subarray(row * size, (row + 1) * size)]),
  );
  const forecastOf = async (of: FeatureState, x: HostTensor, count: number) => {
    const own = { sample: x, ...tables, pair: integers([count], new Array<number>(count).fill(0)) };
    const { outputs } = await backbone.run(cut, {
      feeds: { ...own, ...of.combine(12, backbone.cut(cut).forecasts) },
      fetch: [graphNames.output],
    });
    return numbers(outputs[graphNames.output]);
  };
  const together = await forecastOf(state, sample, 4);
  const alone = await forecastOf(part, half, 2);
  const outputSize = together.length / 4;
  const wanted = rows.flatMap((row) => together.slice(row * outputSize, (row + 1) * outputSize));
  expect(relativeError(alone, wanted)).toBeLessThan(2e-6);
  expect(part.bytes).toBe(state.bytes / 2);
});

describe("bytes", () => {
  const bytes = async (forecaster: Forecaster, measure: boolean) =>
    (
      await FeatureState.start(
        backbone,
        "bytes",
        { forecaster, capture: { capture: { level: "module" } }, measure },
        [0, 0],
      )
    ).bytes;

  test("count every buffer: state, one slot more where the oldest is still read, one spare for the averages", async () => {
    const sites = backbone.cut({ capture: { level: "module" } }).captured;
    const tensor = 4 * 2 * (sites[0]?.elements as number);
    const all = tensor * sites.length;
    expect(await bytes(fora(), false)).toBe(all);
    expect(await bytes(fora(), true)).toBe(2 * all);
    expect(await bytes(taylorSeer(2) as Forecaster, false)).toBe(3 * all);
    expect(await bytes(newton(2) as Forecaster, true)).toBe(4 * all);
    expect(await bytes(femo({ order: 2, beta: 0 }) as Forecaster, true)).toBe(5 * all + 2 * tensor);
  });
});
