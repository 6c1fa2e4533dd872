import { describe, expect, test } from "vitest";
import { countFlops, Graph, type Value } from "../../src/graph/index.js";
import { dit, ditXL2 } from "../../src/models/dit.js";
import { traceCut } from "../../src/tracing/index.js";
import { femoError } from "../weights/helpers.js";

describe("counts by hand", () => {
  const cases: [string, (g: Graph) => Value, number][] = [
    ["Gemm: 2 for each multiply-add", (g) => g.input("x", [3, 4]).linear(g.weight("w", [5, 4]), null), 2 * 3 * 4 * 5],
    [
      "Gemm with bias",
      (g) => g.input("x", [3, 4]).linear(g.weight("w", [5, 4]), g.weight("b", [5])),
      2 * 3 * 4 * 5 + 15,
    ],
    ["Gemm of three axes", (g) => g.input("x", ["batch", 3, 4]).linear(g.weight("w", [5, 4]), null), 7 * 2 * 3 * 4 * 5],
    ["MatMul", (g) => g.input("x", [2, 1, 3, 4]).matMul(g.input("y", [5, 4, 2])), 2 * (2 * 5) * 3 * 4 * 2],
    ["Gram", (g) => g.input("x", ["batch", 3, 11]).gram(), 7 * 2 * 3 * 3 * 11],
    // scores and values, 2 x 2 x 4 x 5 x 6 each; softmax 5 for each of 2 x 2 x 4 x 5 scores
    [
      "attention",
      (g) => g.input("q", [2, 4, 6]).attention(g.input("k", [2, 5, 6]), g.input("v", [2, 5, 6]), 2),
      960 + 400,
    ],
    [
      "patches",
      (g) => g.input("x", [2, 3, 4, 4]).patchConv(g.weight("w", [5, 3, 2, 2]), g.weight("b", [5])),
      2 * (2 * 5 * 4) * 12 + 40,
    ],
    [
      "element by element",
      (g) =>
        g
          .input("x", [6])
          .add(g.input("y", [6]))
          .mul(g.input("y", [6])),
      12,
    ],
    ["moving data is free", (g) => g.input("x", [2, 6]).reshape([3, 4]).transpose([1, 0]).unsqueeze(0), 0],
  ];
  test.each(cases)("%s", (_, build, flops) => {
    const graph = new Graph();
    graph.output("y", build(graph));
    expect(countFlops(graph, { batch: 7 })).toBe(flops);
  });

  test("shared values count once, unreachable ones not at all", () => {
    const graph = new Graph();
    const x = graph.input("x", [10]);
    const y = x.add(x);
    y.mul(y); // nobody asks for it
    graph.output("y", y);
    graph.output("again", y);
    expect(countFlops(graph, {})).toBe(10);
  });

  test("a dimension without a value and an operator without a count are errors", async () => {
    const graph = new Graph();
    graph.output("y", graph.input("x", ["batch"]).sin());
    expect(await femoError("E_GRAPH", () => countFlops(graph, { rows: 1 }))).toContain('"batch"');
    const strange = new Graph();
    strange.output("y", strange.node("Det", [strange.input("x", [2, 2])], []));
    expect(await femoError("E_GRAPH", () => countFlops(strange, {}))).toContain("Det");
  });
});

describe("DiT-XL/2 at 256x256, without its weights", () => {
  const [D, T, L] = [1152, 256, 28];
  const embedder = 256 * D + D * D;
  const macs = {
    blocks: L * (12 * T * D * D + 2 * T * T * D),
    conditioning: L * (6 * D * D + embedder) + 2 * D * D + embedder,
    ends: T * D * 16 + T * D * 32,
  };
  const perImage = macs.blocks + macs.conditioning + macs.ends;
  const flops = countFlops(traceCut(dit(ditXL2), { hoisted: "inline" }).graph, { batch: 2 });

  test("the products are the literature's 118.64 GMACs an image, within 0.1 %", () => {
    // diffusers' 28 copies of the timestep embedder, where DiT has one, are 0.04 of it.
    expect(perImage / 118.64e9).toBeGreaterThan(0.999);
    expect(perImage / 118.64e9).toBeLessThan(1.001);
  });

  test("biases, norms, activations and softmax add less than 1 %", () => {
    const products = 2 * 2 * perImage;
    expect(flops).toBeGreaterThan(products);
    expect(flops / products).toBeLessThan(1.01);
    expect(flops / (2 * 2 * 118.64e9)).toBeLessThan(1.01);
  });

  test("a forecast at 'stack' uses no weights but those of patches and final layer, at 'output' none", () => {
    const weights = (granularity: "stack" | "output") =>
      traceCut(dit(ditXL2), { forecast: { level: granularity }, state: { history: 1, averages: 0 } })
        .graph.reachable()
        .weights.map(({ name }) => name)
        .sort();
    expect(weights("stack")).toEqual([
      "pos_embed.proj.bias",
      "pos_embed.proj.weight",
      "proj_out_2.bias",
      "proj_out_2.weight",
    ]);
    expect(weights("output")).toEqual([]);
    expect(
      traceCut(dit(ditXL2), { forecast: { level: "output" }, state: { history: 1, averages: 1 } })
        .graph.reachable()
        .inputs.map(({ name }) => name)
        .sort(),
    ).toEqual(["averages:output", "combine", "history:output:0"]);
  });

  test.each(["module", "block", "stack", "output"] as const)(
    "at '%s' every feature of the full graph is one of the forecast graph",
    (granularity) => {
      const state = { history: 1, averages: 2 };
      const [full, forecast] = [
        traceCut(dit(ditXL2), { capture: { level: granularity } }),
        traceCut(dit(ditXL2), { forecast: { level: granularity }, state }),
      ];
      expect(full.captured).toEqual(forecast.forecasts);
      const count = { module: 56, block: 28, stack: 1, output: 1 }[granularity];
      expect(full.captured).toHaveLength(count);
      const elements = granularity === "output" ? 8 * 32 * 32 : T * D;
      for (const feature of full.captured) expect(feature.elements).toBe(elements);

      const [rows, samples] = [3, 2];
      const bindings = { batch: samples, pairs: 0, features: count };
      // F^ = c S; modules are then gated and added, residuals only added.
      const combine = 2 * samples * rows * elements * count;
      const others = countFlops(forecast.graph, bindings) - combine;
      expect(others).toBeGreaterThanOrEqual(0);
      expect(others / countFlops(full.graph, bindings)).toBeLessThan(0.002);
    },
  );
});
