import { beforeAll, describe, expect, test } from "vitest";
import { bindShape } from "../../src/graph/index.js";
import { traceCut } from "../../src/tracing/index.js";
import { engineForTests, evaluate, numbers, relativeError } from "../runtime/helpers.js";
import { evaluateEach, keptAs, openUNet, type TinyUNet, unetNames } from "./unets.js";

const engine = engineForTests();
const parity = 1e-5;
const rounding = 2e-6; // of float32, relative to the largest element
const newestOnly = { history: 1, averages: 0 };

describe.each(unetNames)("%s", (name) => {
  let tiny: TinyUNet;
  beforeAll(async () => {
    tiny = await openUNet(name);
  });

  test("equals diffusers", async () => {
    const { model, weights, tensors, sizes } = tiny;
    const { output } = await evaluate(engine, traceCut(model, { hoisted: "inline" }).graph, tensors, weights);
    expect(output?.dims).toEqual([2, ...bindShape(model.output, sizes)]);
    expect(relativeError(numbers(output), numbers(tensors.output))).toBeLessThan(parity);
  });

  test("the checkpoint has exactly the model's tensors", () => {
    const needed = traceCut(tiny.model, { hoisted: "inline" }).graph.reachable().weights;
    const own = tiny.checkpoint.tensors();
    expect(needed.map(({ name, shape }) => `${name} ${shape}`).sort()).toEqual(
      own.map(({ name, shape }) => `${name} ${shape}`).sort(),
    );
  });

  test("tables of pairs and conditions give what the whole graph gives, and a step reads nothing else of them", async () => {
    const { model, weights, tensors } = tiny;
    const step = traceCut(model, {});
    const { output } = await evaluate(engine, step.graph, await tiny.feeds(engine), weights);
    expect(relativeError(numbers(output), numbers(tensors.output))).toBeLessThan(parity);
    const reads = step.graph.reachable().inputs.map(({ name }) => name);
    for (const { name, varies } of model.inputs) {
      const isImage = name.startsWith("mask");
      if (varies !== "step" && !isImage) expect(reads).not.toContain(name);
    }
  });
});

describe.each(["sd2", "inpaint"] as const)("%s, every level in its turn", (name) => {
  let tiny: TinyUNet;
  let step: Awaited<ReturnType<TinyUNet["feeds"]>>;
  let truth: typeof step;
  beforeAll(async () => {
    tiny = await openUNet(name);
    step = await tiny.feeds(engine);
    const every = { any: tiny.model.levels.map((level) => ({ level })) };
    truth = await evaluate(engine, traceCut(tiny.model, { capture: every }).graph, step, tiny.weights);
  });

  test("forecast from the step's own features it is the step, from others it is not", async () => {
    const { model, weights, sizes } = tiny;
    for (const level of model.levels) {
      const { graph, forecasts } = traceCut(model, { forecast: { level }, state: newestOnly });
      expect(forecasts).toEqual(traceCut(model, { capture: { level } }).captured);
      const feeds = [1, 2].map((factor) => ({ ...step, ...keptAs(forecasts, truth, sizes, factor) }));
      const [again, other] = await evaluateEach(engine, graph, feeds, weights);
      expect(relativeError(numbers(again?.output), numbers(truth.output)), level).toBeLessThan(rounding);
      expect(relativeError(numbers(other?.output), numbers(truth.output)), level).toBeGreaterThan(1e-3);
    }
  });
});
