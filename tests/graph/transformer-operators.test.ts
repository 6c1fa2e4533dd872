import { describe, expect, test } from "vitest";
import { countFlops, Graph, type Value } from "../../src/graph/index.js";
import { engineForTests, evaluate, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();

/** The outputs of a graph over noise of the given shapes, and that noise. */
async function run(shapes: number[][], build: (...inputs: Value[]) => Value[]) {
  const graph = new Graph();
  const feeds = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, noise(shape, i)]));
  const outputs = build(...shapes.map((shape, i) => graph.input(`x${i}`, shape)));
  outputs.forEach((value, i) => {
    graph.output(`y${i}`, value);
  });
  const found = await evaluate(engine, graph, feeds);
  return {
    inputs: shapes.map((_, i) => numbers(feeds[`x${i}`])),
    outputs: outputs.map(({ shape }, i) => {
      expect(found[`y${i}`]?.dims).toEqual(shape);
      return numbers(found[`y${i}`]);
    }),
  };
}

describe("equal their definitions in float64", () => {
  test("rmsNorm", async () => {
    const epsilon = 0.1;
    const { inputs, outputs } = await run([[2, 3, 5], [5]], (x, scale) => [
      (x as Value).rmsNorm(epsilon, scale as Value),
    ]);
    const [x, scale] = inputs as [number[], number[]];
    const wanted = x.map((value, i) => {
      const row = x.slice(i - (i % 5), i - (i % 5) + 5);
      const meanSquare = row.reduce((sum, v) => sum + v * v, 0) / 5;
      return (value / Math.sqrt(meanSquare + epsilon)) * (scale[i % 5] as number);
    });
    expect(relativeError(outputs[0] as number[], wanted)).toBeLessThan(1e-6);
  });

  test("rotary: pairs of each head turn by the token's angles, whatever the sample", async () => {
    const [batch, tokens, heads, pairs] = [2, 3, 2, 2];
    const width = 2 * heads * pairs;
    const angles = [
      [tokens, pairs],
      [tokens, pairs],
    ];
    const { inputs, outputs } = await run([[batch, tokens, width], ...angles], (x, cos, sin) => [
      (x as Value).rotary(cos as Value, sin as Value, heads),
    ]);
    const [x, cos, sin] = inputs as [number[], number[], number[]];
    const wanted = x.map((value, i) => {
      const [token, pair] = [Math.floor(i / width) % tokens, Math.floor(i / 2) % pairs];
      const [c, s] = [cos[token * pairs + pair] as number, sin[token * pairs + pair] as number];
      return i % 2 === 0 ? value * c - (x[i + 1] as number) * s : (x[i - 1] as number) * s + value * c;
    });
    expect(relativeError(outputs[0] as number[], wanted)).toBeLessThan(1e-6);
  });

  test("split into parts as long as others along an axis", async () => {
    const { inputs, outputs } = await run([[2, 5, 3]], (x) => {
      const like = (length: number) => (x as Value).graph.constant(new Float32Array(length), [1, length]);
      return (x as Value).splitLike([like(1), like(4)], 1);
    });
    const x = inputs[0] as number[];
    const rows = (from: number, to: number) => [0, 1].flatMap((b) => x.slice((5 * b + from) * 3, (5 * b + to) * 3));
    expect(outputs).toEqual([rows(0, 1), rows(1, 5)]);
  });
});

describe("shapes that do not fit are errors that name them", () => {
  test.each<[string, (g: Graph) => unknown, string[]]>([
    ["rmsNorm", (g) => g.input("x", [2, 3]).rmsNorm(1e-6, g.weight("s", [4])), ["[2, 3]", "[4]"]],
    ["rotary", (g) => g.input("x", [1, 5, 8]).rotary(g.input("c", [5, 4]), g.input("s", [5, 4]), 2), ["[5, 4]", "2"]],
    [
      "rotary's tokens",
      (g) => g.input("x", [1, 5, 8]).rotary(g.input("c", [6, 2]), g.input("s", [6, 2]), 2),
      ["[6, 2]"],
    ],
    [
      "split",
      (g) => g.input("x", [2, 5]).splitLike([g.input("a", [1, 2]), g.input("b", [1, 4])], 1),
      ["[2, 5]", "2 + 4"],
    ],
    ["split of a symbol", (g) => g.input("x", ["batch", 5]).splitLike([g.input("a", ["rows", 5])], 0), ["[batch, 5]"]],
  ])("%s", async (_, build, parts) => {
    const message = await femoError("E_GRAPH", () => build(new Graph()));
    for (const part of parts) expect(message).toContain(part);
  });
});

test.each<[string, (g: Graph) => Value, number]>([
  // a square and a sum, the division by the root, the scale
  ["rmsNorm", (g) => g.input("x", ["batch", 3, 5]).rmsNorm(1e-6, g.weight("s", [5])), 7 * 15 * 4],
  // x c - y s
  ["rotary", (g) => g.input("x", ["batch", 3, 8]).rotary(g.input("c", [3, 2]), g.input("s", [3, 2]), 2), 7 * 24 * 3],
  [
    "split",
    (g) => g.input("x", ["batch", 5]).splitLike([g.input("a", [1, 2]), g.input("b", [1, 3])], 1)[1] as Value,
    0,
  ],
])("operations of %s", (_, build, flops) => {
  const graph = new Graph();
  graph.output("y", build(graph));
  expect(countFlops(graph, { batch: 7 })).toBe(flops);
});
