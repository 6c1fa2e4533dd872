import { beforeAll, describe, expect, test } from "vitest";
import { taylorSeer } from "../../src/forecasts/index.js";
import { type Granularity, granularities, type TracedGraph, traceForecast, traceFull } from "../../src/graph/index.js";
import { Coefficients } from "../../src/pipelines/coefficients.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { engineForTests, floats, integers, noise, numbers, relativeError, sizeOf } from "../runtime/helpers.js";
import { type Feeds, goldenFolder, type OpenModel, openModel } from "./tiny.js";

const engine = engineForTests();
let tiny: OpenModel;
let tables: Feeds;
beforeAll(async () => {
  tiny = await openModel(engine, `${goldenFolder}/tiny-a`);
  tables = await tiny.tables([900, 500, 100], [0, 3, 7]);
});

const rounding = 2e-6; // of float32, relative to the largest element

/** Row i of matrix `at` of a stack of matrices, [.., rows, columns]. */
function row(tensor: HostTensor, at: number, i: number): Float32Array {
  const [rows, columns] = tensor.dims.slice(-2) as [number, number];
  const start = (at * rows + i) * columns;
  return (tensor.data as Float32Array).subarray(start, start + columns);
}

/** Sums of products in float64. */
const mix = (weights: ArrayLike<number>, rows: readonly ArrayLike<number>[]): number[] =>
  Array.from({ length: (rows[0] as ArrayLike<number>).length }, (_, j) =>
    rows.reduce((sum, r, i) => sum + (weights[i] as number) * (r[j] as number), 0),
  );

/** Matrices [features, batch, ...dims] that pick one element of each row. */
function picking(features: number, batch: number, rows: number, columns: number, column: number): HostTensor {
  const one = Array.from({ length: rows * columns }, (_, i) => (i % columns === column ? 1 : 0));
  const data = Array.from({ length: features * batch }, () => one).flat();
  return floats([features, batch, rows, columns], data);
}

describe.each(granularities)("update and combine in the graphs, at '%s'", (granularity) => {
  let [full, forecast]: TracedGraph[] = [];
  beforeAll(() => {
    full = traceFull(tiny.model, granularity, true);
    forecast = traceForecast(tiny.model, granularity);
  });

  const cases = [1, 3].flatMap((batch) => [1, 2, 3, 4].map((order) => ({ batch, order })));
  test.each(cases)("equal float64 sums: batch $batch, order $order", async ({ batch, order }) => {
    const [graph, cheap] = [full as TracedGraph, forecast as TracedGraph];
    const k = 2 * order; // FEMO's; the graphs serve any
    const { features } = graph;
    const step = {
      ...tables,
      sample: noise([batch, ...tiny.model.sampleShape], 1),
      pair: integers([batch], [1, 0, 2].slice(0, batch)),
    };
    const state = Object.fromEntries(
      features.map(({ name, elements }, i) => [`state:${name}`, noise([batch, k, elements], 10 + i)]),
    );
    const stateOf = (name: string, sample: number): Float32Array[] =>
      Array.from({ length: k }, (_, i) => row(state[`state:${name}`] as HostTensor, sample, i));

    // U that picks F gives F itself, and with F held and picked, the forecast step is the full step.
    const pickNewest = picking(features.length, batch, k, k + 1, k);
    const truth = await tiny.run(graph, { ...step, ...state, update: pickNewest });
    const held = Object.fromEntries(
      features.map(({ name }) => [`state:${name}`, truth[`next-state:${name}`] as HostTensor]),
    );
    const again = await tiny.run(cheap, { ...step, ...held, combine: picking(features.length, batch, 1, k, 0) });
    expect(relativeError(numbers(again.output), numbers(truth.output))).toBeLessThan(rounding);

    // Any U and any c.
    const update = noise([features.length, batch, k, k + 1], 2);
    const moved = await tiny.run(graph, { ...step, ...state, update });
    expect(numbers(moved.output)).toEqual(numbers(truth.output));
    const combine = noise([features.length, batch, 1, k], 3);
    const combined: Record<string, HostTensor> = {};
    features.forEach(({ name, elements }, f) => {
      const [next, one] = [moved[`next-state:${name}`] as HostTensor, new Float32Array(batch * k * elements)];
      expect(next.dims).toEqual([batch, k, elements]);
      for (let sample = 0; sample < batch; sample++) {
        const at = f * batch + sample;
        const stacked = [...stateOf(name, sample), row(held[`state:${name}`] as HostTensor, sample, 0)];
        for (let i = 0; i < k; i++) {
          expect(relativeError(row(next, sample, i), mix(row(update, at, i), stacked))).toBeLessThan(rounding);
        }
        const products = stacked.flatMap((a) =>
          stacked.map((b) => a.reduce((sum, x, j) => sum + x * (b[j] as number), 0)),
        );
        const gram = Array.from({ length: k + 1 }, (_, i) => Array.from(row(moved.gram as HostTensor, at, i))).flat();
        expect(relativeError(gram, products)).toBeLessThan(rounding);
        one.set(mix(row(combine, at, 0), stateOf(name, sample)), sample * k * elements);
      }
      combined[`state:${name}`] = floats([batch, k, elements], one);
    });
    expect(moved.gram?.dims).toEqual([features.length, batch, k + 1, k + 1]);

    // The forecast from [S, c] is the forecast from c S, mixed in float64, alone.
    const mixed = await tiny.run(cheap, { ...step, ...state, combine });
    const wanted = await tiny.run(cheap, { ...step, ...combined, combine: picking(features.length, batch, 1, k, 0) });
    expect(relativeError(numbers(mixed.output), numbers(wanted.output))).toBeLessThan(1e-5);
    expect(relativeError(numbers(mixed.output), numbers(truth.output))).toBeGreaterThan(1e-3);
  });
});

describe("granularities compared", () => {
  /** Full steps at 49, 48 and 45, each with a sample of its own, then a forecast at 43. */
  async function forecastWith(granularity: Granularity, pairOf: (step: number) => number[]): Promise<number[]> {
    const [full, forecast] = [traceFull(tiny.model, granularity, false), traceForecast(tiny.model, granularity)];
    const coefficients = new Coefficients(taylorSeer(2), full.features.length, [0, 1]);
    const stepAt = (step: number): Feeds => ({
      ...tables,
      sample: noise([2, ...tiny.model.sampleShape], 30 + step),
      pair: integers([2], pairOf(step)),
    });
    let state: Feeds = Object.fromEntries(
      full.features.map(({ name, elements }) => [
        `state:${name}`,
        floats([2, 3, elements], new Float32Array(sizeOf([2, 3, elements]))),
      ]),
    );
    for (const [step, position] of [49, 48, 45].entries()) {
      const update = coefficients.update({ position, differences: step > 0 });
      const outputs = await tiny.run(full, { ...stepAt(step), ...state, update });
      state = Object.fromEntries(
        full.features.map(({ name }) => [`state:${name}`, outputs[`next-state:${name}`] as HostTensor]),
      );
    }
    const { output } = await tiny.run(forecast, { ...stepAt(3), ...state, combine: coefficients.combine(43) });
    return numbers(output);
  }

  test("'block' and 'stack' agree: a sum of forecasts is the forecast of the sum", async () => {
    const moving = (step: number): number[] => [step % 3, (step + 1) % 3];
    const [block, stack] = [await forecastWith("block", moving), await forecastWith("stack", moving)];
    expect(relativeError(block, stack)).toBeLessThan(1e-5);
  });

  test("'module' agrees with them as long as the gates do not move", async () => {
    const frozen = (): number[] => [0, 2];
    const [module, stack] = [await forecastWith("module", frozen), await forecastWith("stack", frozen)];
    expect(relativeError(module, stack)).toBeLessThan(1e-5);
  });

  test("and parts from them when the gates move", async () => {
    const moving = (step: number): number[] => [step % 3, (step + 1) % 3];
    const [module, stack] = [await forecastWith("module", moving), await forecastWith("stack", moving)];
    expect(relativeError(module, stack)).toBeGreaterThan(1e-3);
  });
});
