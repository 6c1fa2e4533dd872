import { beforeAll, describe, expect, test } from "vitest";
import { Coefficients } from "../../src/denoising/coefficients.js";
import { taylorSeer } from "../../src/methods/forecasts/index.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { graphNames, type Model, sampleOf, traceCut } from "../../src/tracing/index.js";
import { engineForTests, floats, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { type Feeds, goldenFolder, type OpenModel, openModel } from "./tiny.js";

const engine = engineForTests();
let tiny: OpenModel;
let tables: Feeds;
beforeAll(async () => {
  tiny = await openModel(engine, `${goldenFolder}/tiny-a`);
  tables = await tiny.tables([900, 500, 100], [0, 3, 7]);
});

const sampleDims = (model: Model): number[] => sampleOf(model).shape as number[];
const reshaped = ({ data, dtype }: HostTensor, dims: readonly number[]): HostTensor => ({ data, dtype, dims });

test.each(["module", "block", "stack", "output"])(
  "at '%s' a forecast from the step's own features is the step",
  async (granularity) => {
    const [full, forecast] = [
      traceCut(tiny.model, { capture: { level: granularity } }),
      traceCut(tiny.model, { forecast: { level: granularity }, state: { history: 1, averages: 0 } }),
    ];
    const step = { ...tables, sample: noise([3, ...sampleDims(tiny.model)], 1), pair: integers([3], [1, 0, 2]) };
    const truth = await tiny.run(full, step);
    const history = Object.fromEntries(
      full.captured.map(({ name, elements }) => [
        graphNames.history(name, 0),
        reshaped(truth[graphNames.feature(name)] as HostTensor, [3, 1, elements as number]),
      ]),
    );
    const ones = new Array(3 * full.captured.length).fill(1);
    const combine = (weights: readonly number[]) => floats([full.captured.length, 3, 1, 1], weights);
    const again = await tiny.run(forecast, { ...step, ...history, combine: combine(ones) });
    expect(relativeError(numbers(again.output), numbers(truth.output))).toBeLessThan(2e-6);
    const doubled = await tiny.run(forecast, { ...step, ...history, combine: combine(ones.map(() => 2)) });
    expect(relativeError(numbers(doubled.output), numbers(truth.output))).toBeGreaterThan(1e-3);
  },
);

describe("granularities compared", () => {
  /** Full steps at 49, 48 and 45, each with a sample of its own, then a forecast at 43. */
  async function forecastWith(granularity: string, pairOf: (step: number) => number[]): Promise<number[]> {
    const [full, forecast] = [
      traceCut(tiny.model, { capture: { level: granularity } }),
      traceCut(tiny.model, { forecast: { level: granularity }, state: { history: 3, averages: 0 } }),
    ];
    const coefficients = Coefficients.start(taylorSeer(2), full.captured.length, [0, 1]);
    const stepAt = (step: number): Feeds => ({
      ...tables,
      sample: noise([2, ...sampleDims(tiny.model)], 30 + step),
      pair: integers([2], pairOf(step)),
    });
    const state: Record<string, HostTensor> = {};
    for (const [step, position] of [49, 48, 45].entries()) {
      coefficients.update({ position, differences: step > 0 });
      const outputs = await tiny.run(full, stepAt(step));
      for (const { name, elements } of full.captured) {
        state[graphNames.history(name, 2 - step)] = reshaped(outputs[graphNames.feature(name)] as HostTensor, [
          2,
          1,
          elements as number,
        ]);
      }
    }
    const { output } = await tiny.run(forecast, {
      ...stepAt(3),
      ...state,
      combine: coefficients.combine(43, [...full.captured.keys()]),
    });
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
