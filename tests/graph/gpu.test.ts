import { expect, test } from "vitest";
import { Graph, productDim, toOnnx } from "../../src/graph/index.js";
import { traceFeatureKernel } from "../../src/tracing/index.js";
import { engineForTests, noise } from "../runtime/helpers.js";

const engine = engineForTests();

/** What a graph gives as it is written for a CPU and for a GPU, both run on the CPU. */
async function both(graph: Graph, dims: Readonly<Record<string, readonly number[]>>) {
  const feeds = Object.fromEntries(Object.entries(dims).map(([name, size], i) => [name, noise(size, i + 1)]));
  const fetch = graph.outputs.map(({ name }) => name);
  return Promise.all(
    (["cpu", "gpu"] as const).map(async (target) => {
      const session = await engine.load({ model: toOnnx(graph, () => undefined, { target }), files: [] });
      const { outputs } = await session.run({ feeds, fetch });
      return fetch.map((name) => ({ dims: outputs[name]?.dims, data: Array.from(outputs[name]?.data ?? [], Number) }));
    }),
  );
}

const expectSame = ([cpu, gpu]: Awaited<ReturnType<typeof both>>): void => {
  for (const [i, { dims, data }] of (cpu ?? []).entries()) {
    expect(gpu?.[i]?.dims).toEqual(dims);
    for (const [j, x] of data.entries()) expect(gpu?.[i]?.data[j]).toBeCloseTo(x, 4);
  }
};

test("what moves the state of a feature gives the same in the operators of a GPU", async () => {
  const graph = traceFeatureKernel({ history: 2, averages: 1, measure: true, update: true });
  const [batch, elements] = [3, 37];
  expectSame(
    await both(graph, {
      feature: [batch, 1, elements],
      "history:0": [batch, 1, elements],
      "history:1": [batch, 1, elements],
      averages: [batch, 1, elements],
      update: [batch, 1, 4],
    }),
  );
});

test.each([
  ["a few rows", [2, 3, 5], [2, 5, 7], {}],
  ["many rows", [2, 9, 5], [2, 5, 7], {}],
  ["many rows, the right side swapped", [2, 9, 5], [2, 7, 5], { right: true }],
  ["many rows, the left side swapped", [2, 5, 9], [2, 5, 7], { left: true }],
  ["a few rows, both sides swapped", [2, 5, 3], [2, 7, 5], { left: true, right: true }],
  ["a few rows, the left side swapped", [2, 5, 3], [2, 5, 7], { left: true }],
] as const)("a product gives the same: %s", async (_, a, b, swaps) => {
  const graph = new Graph();
  const [x, y] = [graph.input("a", a), graph.input("b", b)];
  graph.output("y", Object.keys(swaps).length === 0 ? x.matMul(y) : x.matMulSwapped(y, swaps));
  expectSame(await both(graph, { a, b }));
});

test("squares of pixels become channels in the same order", async () => {
  const graph = new Graph();
  const x = graph.input("x", ["batch", 3, productDim([2, "rows"]), productDim([2, "columns"])]);
  graph.output("y", x.spaceToDepth(2, "rows", "columns"));
  const [cpu, gpu] = await both(graph, { x: [2, 3, 4, 10] });
  expect(gpu).toEqual(cpu);
});
