import { describe, expect, test } from "vitest";
import { countFlops, Graph, type Value } from "../../src/graph/index.js";
import { engineForTests, evaluate, integers, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();

/** What a graph makes of noise of the given shapes, and that noise. */
async function run(shapes: readonly number[][], build: (...inputs: Value[]) => Value) {
  const graph = new Graph();
  const feeds = Object.fromEntries(shapes.map((shape, i) => [`x${i}`, noise(shape, i)]));
  const y = build(...shapes.map((shape, i) => graph.input(`x${i}`, shape)));
  graph.output("y", y);
  const found = await evaluate(engine, graph, feeds);
  expect(found.y?.dims).toEqual(y.shape);
  return { inputs: shapes.map((_, i) => numbers(feeds[`x${i}`])), output: numbers(found.y) };
}

const range = (size: number): number[] => Array.from({ length: size }, (_, i) => i);

describe("equal their definitions in float64", () => {
  test.each([
    { left: false, right: true },
    { left: true, right: false },
    { left: true, right: true },
    { left: false, right: false },
  ])("matMulSwapped, left $left, right $right", async (swap) => {
    const [batch, m, k, n] = [2, 3, 4, 5];
    const { inputs, output } = await run(
      [
        [batch, 1, ...(swap.left ? [k, m] : [m, k])],
        [batch, 1, ...(swap.right ? [n, k] : [k, n])],
      ],
      (a, b) => (a as Value).matMulSwapped(b as Value, swap),
    );
    const [a, b] = inputs as [number[], number[]];
    const wanted = range(batch).flatMap((i) =>
      range(m).flatMap((row) =>
        range(n).map((column) =>
          range(k).reduce((sum, j) => {
            const x = a[i * m * k + (swap.left ? j * m + row : row * k + j)] as number;
            return sum + x * (b[i * k * n + (swap.right ? column * k + j : j * n + column)] as number);
          }, 0),
        ),
      ),
    );
    expect(relativeError(output, wanted)).toBeLessThan(1e-6);
  });

  test("softmax", async () => {
    const { inputs, output } = await run([[2, 3, 5]], (x) => (x as Value).softmax());
    const exps = (inputs[0] as number[]).map(Math.exp);
    const sums = range(6).map((row) => exps.slice(5 * row, 5 * row + 5).reduce((a, b) => a + b));
    const wanted = exps.map((x, i) => x / (sums[Math.floor(i / 5)] as number));
    expect(relativeError(output, wanted)).toBeLessThan(1e-6);
  });

  test("sums and means go along the axis that they keep, of size one", async () => {
    const shape = [2, 3, 4];
    const total = ([x]: readonly number[][], i: number) =>
      range(3).reduce((sum, j) => sum + (x?.[Math.floor(i / 4) * 12 + j * 4 + (i % 4)] as number), 0);
    const sum = await run([shape], (x) => (x as Value).sum([1]));
    expect(
      relativeError(
        sum.output,
        sum.output.map((_, i) => total(sum.inputs, i)),
      ),
    ).toBeLessThan(1e-6);
    const mean = await run([shape], (x) => (x as Value).mean([1]));
    expect(
      relativeError(
        mean.output,
        mean.output.map((_, i) => total(mean.inputs, i) / 3),
      ),
    ).toBeLessThan(1e-6);
    const first = await run([shape], (x) => (x as Value).abs().sum([0]));
    expect(first.output.every((x) => x > 0)).toBe(true);
  });

  test("topK finds where the largest of each row are", async () => {
    const { inputs, output } = await run([[2, 3, 7]], (x) => (x as Value).topK(3));
    const rows = range(6).map((row) => (inputs[0] as number[]).slice(7 * row, 7 * row + 7));
    const wanted = rows.map((row) =>
      range(7)
        .sort((a, b) => (row[b] as number) - (row[a] as number))
        .slice(0, 3),
    );
    const found = range(6).map((row) => output.slice(3 * row, 3 * row + 3));
    expect(found.map((indices) => indices.toSorted())).toEqual(wanted.map((indices) => indices.toSorted()));
  });

  test("gatherRows takes rows of every leading axis by indices of its own", async () => {
    const graph = new Graph();
    const x = noise([2, 3, 4, 5], 1);
    const chosen = [2, 0, 1, 1, 0, 2].flatMap((i) => [i, 3 - i]);
    graph.output("y", graph.input("x", ["batch", 3, 4, 5]).gatherRows(graph.input("i", ["batch", 3, 2], "int64")));
    const { y } = await evaluate(engine, graph, { x, i: integers([2, 3, 2], chosen) });
    expect(y?.dims).toEqual([2, 3, 2, 5]);
    const wanted = chosen.flatMap((row, at) => {
      const start = (Math.floor(at / 2) * 4 + row) * 5;
      return numbers(x).slice(start, start + 5);
    });
    expect(numbers(y)).toEqual(wanted);
  });

  test("attention over keys and values that lie head by head", async () => {
    const [batch, tokens, length, heads, size] = [2, 3, 5, 2, 4];
    const build = (split: boolean) => (q: Value, k: Value, v: Value) => {
      const part = (x: Value) => x.reshape([batch, length, heads, size]).transpose([0, 2, 1, 3]);
      return split ? q.attention(part(k), part(v), heads) : q.attention(k, v, heads);
    };
    const shapes = [tokens, length, length].map((rows) => [batch, rows, heads * size]);
    const [plain, split] = [
      await run(shapes, build(false) as (...inputs: Value[]) => Value),
      await run(shapes, build(true) as (...inputs: Value[]) => Value),
    ];
    expect(relativeError(split.output, plain.output)).toBeLessThan(1e-6);
  });
});

describe("count what they compute", () => {
  const cases: [string, (g: Graph) => Value, number][] = [
    [
      "matMulSwapped",
      (g) => g.input("x", ["batch", 3, 4]).matMulSwapped(g.input("y", ["batch", 3, 5]), { left: true }),
      7 * 2 * 4 * 5 * 3,
    ],
    ["softmax", (g) => g.input("x", [6]).softmax(), 30],
    [
      "sums, by what goes into them",
      (g) =>
        g
          .input("x", [3, 4])
          .sum([0])
          .add(g.input("y", [3, 4]).mean([0])),
      28,
    ],
    [
      "choosing, a comparison for each, and rows that are taken",
      (g) => g.input("x", [2, 5]).gatherRows(g.input("y", [2, 9]).topK(3)),
      18,
    ],
    [
      "attention over keys that lie head by head",
      (g) => g.input("q", [2, 4, 6]).attention(g.input("k", [2, 2, 5, 3]), g.input("v", [2, 2, 5, 3]), 2),
      960 + 400,
    ],
  ];
  test.each(cases)("%s", (_, build, flops) => {
    const graph = new Graph();
    graph.output("y", build(graph));
    expect(countFlops(graph, { batch: 7 })).toBe(flops);
  });
});

test.each<[string, (x: Value) => Value]>([
  ["topK: [batch, 3, 4] does not have 5 elements", (x) => x.topK(5)],
  ["topK: [batch, 3, 4] does not have 0 elements", (x) => x.topK(0)],
  [
    "gatherRows: indices int64 [batch, 2] do not fit float32 [3, 4]",
    (x) => x.graph.constant(new Float32Array(12), [3, 4]).gatherRows(x.sum([2]).reshape(["batch", 3]).topK(2)),
  ],
  ["matMulSwapped: [batch, 3, 4] x [batch, 3, 4] do not fit", (x) => x.matMulSwapped(x, {})],
  ["attention: queries", (x) => x.attention(x.unsqueeze(1), x.unsqueeze(1), 2)],
])("what does not fit is an error: %s", async (words, build) => {
  const x = new Graph().input("x", ["batch", 3, 4]);
  expect(await femoError("E_GRAPH", () => build(x))).toContain(words);
});
