import { describe, expect, test } from "vitest";
import { countFlops, Graph, type Value } from "../../src/graph/index.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { engineForTests, evaluate, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const [B, T, D] = [2, 6, 3];
const x = noise([B, T, D], 1);
const rows = noise([B, T], 2);
const chosen = [5, 0, 3, 1];

/** What a graph of the inputs by name gives. */
async function run(build: (g: Graph) => Value, feeds: Record<string, HostTensor>): Promise<number[]> {
  const graph = new Graph();
  const y = build(graph);
  graph.output("y", y);
  const found = (await evaluate(engine, graph, feeds)).y as HostTensor;
  expect(found.dims).toHaveLength(y.rank);
  return numbers(found);
}
const cells = (of: (b: number, t: number, d: number) => number): number[] =>
  Array.from({ length: B * T * D }, (_, i) => of(Math.floor(i / T / D), Math.floor(i / D) % T, i % D));
const at = (b: number, t: number, d: number): number => x.data[(b * T + t) * D + d] as number;
const input = (g: Graph): Value => g.input("x", ["batch", T, D]);
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
const rowOf = (b: number): number[] => numbers(rows).slice(b * T, (b + 1) * T);

describe("equal their definitions in float64", () => {
  test("softmax", async () => {
    const wanted = [0, 1].flatMap((b) => {
      const powers = rowOf(b).map(Math.exp);
      return powers.map((power) => power / sum(powers));
    });
    expect(relativeError(await run((g) => g.input("x", ["batch", T]).softmax(), { x: rows }), wanted)).toBeLessThan(
      1e-6,
    );
  });

  test("mean, sum and the greatest, over axes that keep a size of one", async () => {
    const over = (b: number) => cells((_, t, d) => at(b, t, d)).slice(0, T * D);
    const mean = await run((g) => input(g).mean([1, 2]), { x });
    const total = await run((g) => input(g).sum([1, 2]), { x });
    const greatest = await run((g) => input(g).max([1, 2]), { x });
    for (const b of [0, 1]) {
      expect(mean[b]).toBeCloseTo(sum(over(b)) / (T * D), 6);
      expect(total[b]).toBeCloseTo(sum(over(b)), 5);
      expect(greatest[b]).toBe(Math.max(...over(b)));
    }
  });

  test("a quotient, and a root", async () => {
    const half = await run((g) => input(g).mul(input(g)).sqrt().div(g.scalar(2)), { x });
    const wanted = cells((b, t, d) => Math.abs(at(b, t, d)) / 2);
    expect(relativeError(half, wanted)).toBeLessThan(1e-6);
  });

  test("where the greatest is, as ones and zeros", async () => {
    const found = await run((g) => g.input("x", ["batch", T]).argMax().oneHot(T), { x: rows });
    expect(found).toEqual([0, 1].flatMap((b) => rowOf(b).map((v) => (v === Math.max(...rowOf(b)) ? 1 : 0))));
  });

  test("zeros as long as the first axes", async () => {
    expect(await run((g) => input(g).zeros(2), { x })).toEqual(new Array(B * T).fill(0));
  });
});

describe("rows that each sample chooses", () => {
  test.each([0, 1, 4, T])("the %i greatest, with one graph", async (k) => {
    const feeds = { x: rows, k: integers([1], [k]) };
    const found = await run((g) => g.input("x", ["batch", T]).topK(g.input("k", [1], "int64"), "k?"), feeds);
    for (const b of [0, 1]) {
      const sorted = rowOf(b).sort((a, c) => c - a);
      const own = found.slice(b * k, (b + 1) * k).map((t) => rowOf(b)[t] as number);
      expect(own.sort((a, c) => c - a)).toEqual(sorted.slice(0, k));
    }
  });

  const indices = integers([B, 2], chosen);
  const pick = (g: Graph): Value => g.input("i", ["batch", "k?"], "int64");

  test("are taken out, and put back", async () => {
    const taken = await run((g) => input(g).gatherRows(pick(g)), { x, i: indices });
    expect(taken).toEqual(chosen.flatMap((t, i) => [0, 1, 2].map((d) => at(Math.floor(i / 2), t, d))));
    const twice = (g: Graph) => input(g).scatterRows(pick(g), input(g).gatherRows(pick(g)).mul(g.scalar(2)));
    const isChosen = (b: number, t: number) => chosen.slice(2 * b, 2 * b + 2).includes(t);
    expect(await run(twice, { x, i: indices })).toEqual(cells((b, t, d) => at(b, t, d) * (isChosen(b, t) ? 2 : 1)));
  });

  test.each([0, 2])("%i of them pass through a linear layer", async (k) => {
    const weight = noise([4, D], 3);
    const feeds = { x, w: weight, i: integers([B, k], k ? chosen : []) };
    const found = await run(
      (g) =>
        input(g)
          .gatherRows(pick(g))
          .linear(g.input("w", [4, D]), null),
      feeds,
    );
    const product = (b: number, t: number, o: number) =>
      sum([0, 1, 2].map((d) => at(b, t, d) * (weight.data[o * D + d] as number)));
    const wanted = k === 0 ? [] : chosen.flatMap((t, i) => [0, 1, 2, 3].map((o) => product(Math.floor(i / 2), t, o)));
    expect(relativeError(found, wanted)).toBeLessThan(1e-6);
  });
});

test.each<[string, (g: Graph) => Value, string[]]>([
  ["gatherRows", (g) => input(g).gatherRows(g.input("i", ["rows", 2], "int64")), ["[rows, 2]", "[batch, 6, 3]"]],
  ["gatherRows of numbers", (g) => input(g).gatherRows(g.input("i", ["batch", 2])), ["float32"]],
  [
    "scatterRows",
    (g) => input(g).scatterRows(g.input("i", ["batch", 2], "int64"), g.input("r", ["batch", 4, D])),
    ["[batch, 2, 3]", "[batch, 4, 3]"],
  ],
])("shapes that do not fit are errors that name them: %s", async (_, build, parts) => {
  const message = await femoError("E_GRAPH", () => build(new Graph()));
  for (const part of parts) expect(message).toContain(part);
});

test.each<[string, (g: Graph) => Value, number]>([
  ["a softmax, five an element", (g) => g.input("x", ["batch", T]).softmax(), 5 * 7 * T],
  ["a mean, one for each element that goes in", (g) => input(g).mean([1, 2]), 7 * T * D],
  [
    "a linear layer of the rows taken out, as many as the symbol says",
    (g) =>
      input(g)
        .gatherRows(g.input("i", ["batch", "k?"], "int64"))
        .linear(g.weight("w", [4, D]), null),
    2 * 7 * 5 * D * 4,
  ],
])("operations of %s", (_, build, flops) => {
  const graph = new Graph();
  graph.output("y", build(graph));
  expect(countFlops(graph, { batch: 7, "k?": 5 })).toBe(flops);
});
