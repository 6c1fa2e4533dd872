import { describe, expect, test } from "vitest";
import { Graph, sizeOf, type Value } from "../../src/graph/index.js";
import { engineForTests, evaluate, integers, noise, numbers, relativeError } from "../runtime/helpers.js";

const engine = engineForTests();

/** A float64 array of any rank, read by index. */
interface Array64 {
  readonly dims: readonly number[];
  readonly data: readonly number[];
}
const offset = (dims: readonly number[], index: readonly number[]): number =>
  dims.reduce((at, dim, i) => at * dim + (dim === 1 ? 0 : (index[i] as number)), 0);
const at = (x: Array64, ...index: number[]): number =>
  x.data[offset(x.dims, index.slice(index.length - x.dims.length))] as number;

/** The array whose elements `of` gives by index. */
function fill(dims: readonly number[], of: (...index: number[]) => number): number[] {
  return Array.from({ length: sizeOf(dims) }, (_, flat) => {
    const index: number[] = [];
    for (const dim of [...dims].reverse()) {
      index.unshift(flat % dim);
      flat = Math.floor(flat / dim);
    }
    return of(...index);
  });
}
const sum = (n: number, of: (i: number) => number): number =>
  Array.from({ length: n }, (_, i) => of(i)).reduce((a, b) => a + b, 0);

/** By its series, exact enough for |x| < 4. */
function erf(x: number): number {
  let [term, total] = [x, x];
  for (let n = 1; n < 80; n++) {
    term *= (-x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}
const tanhGelu = (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

function layerNorm(x: Array64, epsilon: number, i: number, j: number): number {
  const width = x.dims[1] as number;
  const mean = sum(width, (k) => at(x, i, k)) / width;
  const variance = sum(width, (k) => (at(x, i, k) - mean) ** 2) / width;
  return (at(x, i, j) - mean) / Math.sqrt(variance + epsilon);
}

/** heads of width 3, [2, queries, 6] over [2, keys, 6] */
function attention(q: Array64, k: Array64, v: Array64, b: number, t: number, d: number): number {
  const [head, keys] = [3 * Math.floor(d / 3), k.dims[1] as number];
  const scores = Array.from({ length: keys }, (_, s) =>
    Math.exp(sum(3, (e) => at(q, b, t, head + e) * at(k, b, s, head + e)) / Math.sqrt(3)),
  );
  return sum(keys, (s) => (scores[s] as number) * at(v, b, s, d)) / scores.reduce((a, c) => a + c, 0);
}

interface Case {
  name: string;
  inputs: number[][];
  build(...inputs: Value[]): Value;
  dims: number[];
  of(inputs: Array64[], index: number[]): number;
}
type Reference = (inputs: [Array64, Array64, Array64], ...index: [number, number, number, number]) => number;
const op = (name: string, inputs: number[][], build: Case["build"], dims: number[], of: Reference): Case => ({
  name,
  inputs,
  build,
  dims,
  of: (arrays, index) => of(arrays as [Array64, Array64, Array64], ...(index as [number, number, number, number])),
});
const elementwise = (name: string, build: (x: Value) => Value, of: (x: number) => number): Case =>
  op(name, [[2, 5]], build as Case["build"], [2, 5], ([x], i, j) => of(at(x, i, j)));

const cases: Case[] = [
  op(
    "add, broadcast",
    [
      [2, 1, 4],
      [3, 1],
    ],
    (x, y) => (x as Value).add(y as Value),
    [2, 3, 4],
    ([x, y], i, j, k) => at(x, i, j, k) + at(y, j, k),
  ),
  op(
    "sub, broadcast",
    [[4], [2, 1, 1]],
    (x, y) => (x as Value).sub(y as Value),
    [2, 1, 4],
    ([x, y], i, j, k) => at(x, k) - at(y, i, j, k),
  ),
  op(
    "mul",
    [
      [2, 3],
      [2, 3],
    ],
    (x, y) => (x as Value).mul(y as Value),
    [2, 3],
    ([x, y], i, j) => at(x, i, j) * at(y, i, j),
  ),
  elementwise("sin", (x) => x.sin(), Math.sin),
  elementwise("cos", (x) => x.cos(), Math.cos),
  elementwise(
    "silu",
    (x) => x.silu(),
    (x) => x / (1 + Math.exp(-x)),
  ),
  elementwise(
    "gelu",
    (x) => x.gelu("none"),
    (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
  ),
  elementwise("gelu, tanh form", (x) => x.gelu("tanh"), tanhGelu),
  elementwise(
    "scalar constant",
    (x) => x.add(x.graph.scalar(0.5)),
    (x) => x + 0.5,
  ),
  op(
    "matMul, batch axes broadcast",
    [
      [2, 1, 3, 4],
      [5, 4, 2],
    ],
    (x, y) => (x as Value).matMul(y as Value),
    [2, 5, 3, 2],
    ([x, y], a, b, i, j) => sum(4, (k) => at(x, a, b, i, k) * at(y, b, k, j)),
  ),
  op(
    "gram",
    [[2, 3, 7]],
    (x) => (x as Value).gram(),
    [2, 3, 3],
    ([x], b, i, j) => sum(7, (k) => at(x, b, i, k) * at(x, b, j, k)),
  ),
  op(
    "linear",
    [[3, 4], [5, 4], [5]],
    (x, w, b) => (x as Value).linear(w as Value, b as Value),
    [3, 5],
    ([x, w, b], i, j) => at(b, j) + sum(4, (k) => at(x, i, k) * at(w, j, k)),
  ),
  op(
    "linear, three axes, no bias",
    [
      [2, 3, 4],
      [5, 4],
    ],
    (x, w) => (x as Value).linear(w as Value, null),
    [2, 3, 5],
    ([x, w], a, i, j) => sum(4, (k) => at(x, a, i, k) * at(w, j, k)),
  ),
  op(
    "layerNorm",
    [[3, 6]],
    (x) => (x as Value).layerNorm(0.1),
    [3, 6],
    ([x], i, j) => layerNorm(x, 0.1, i, j),
  ),
  op(
    "layerNorm, affine",
    [[3, 6], [6], [6]],
    (x, s, b) => (x as Value).layerNorm(1e-6, s, b),
    [3, 6],
    ([x, s, b], i, j) => layerNorm(x, 1e-6, i, j) * at(s, j) + at(b, j),
  ),
  op(
    "attention",
    [
      [2, 4, 6],
      [2, 5, 6],
      [2, 5, 6],
    ],
    (q, k, v) => (q as Value).attention(k as Value, v as Value, 2),
    [2, 4, 6],
    ([q, k, v], b, t, d) => attention(q, k, v, b, t, d),
  ),
  op(
    "patchConv",
    [[2, 3, 4, 6], [5, 3, 2, 2], [5]],
    (x, w, b) => (x as Value).patchConv(w as Value, b as Value),
    [2, 5, 2, 3],
    ([x, w, b], n, o, i, j) =>
      at(b, o) + sum(3, (c) => sum(2, (u) => sum(2, (v) => at(x, n, c, 2 * i + u, 2 * j + v) * at(w, o, c, u, v)))),
  ),
  op(
    "patchConv, no bias",
    [
      [1, 1, 2, 2],
      [3, 1, 2, 2],
    ],
    (x, w) => (x as Value).patchConv(w as Value, null),
    [1, 3, 1, 1],
    ([x, w], n, o) => sum(2, (u) => sum(2, (v) => at(x, n, 0, u, v) * at(w, o, 0, u, v))),
  ),
  op(
    "reshape",
    [[2, 6]],
    (x) => (x as Value).reshape([3, 4]),
    [3, 4],
    ([x], i, j) => x.data[4 * i + j] as number,
  ),
  op(
    "transpose",
    [[2, 3, 4]],
    (x) => (x as Value).transpose([1, 2, 0]),
    [3, 4, 2],
    ([x], i, j, k) => at(x, k, i, j),
  ),
  op(
    "chunk, the second of three",
    [[2, 6]],
    (x) => (x as Value).chunk(3, -1)[1] as Value,
    [2, 2],
    ([x], i, j) => at(x, i, 2 + j),
  ),
  op(
    "concat",
    [
      [2, 2],
      [2, 3],
    ],
    (x, y) => (x as Value).concat([y as Value], -1),
    [2, 5],
    ([x, y], i, j) => (j < 2 ? at(x, i, j) : at(y, i, j - 2)),
  ),
  op(
    "gather, rows",
    [[4, 3]],
    (x) => (x as Value).gather((x as Value).graph.integers([3, 0, 3])),
    [3, 3],
    ([x], i, j) => at(x, [3, 0, 3][i] as number, j),
  ),
  op(
    "gather, one row",
    [[4, 3]],
    (x) => (x as Value).gather((x as Value).graph.constant(BigInt64Array.of(2n), [])),
    [3],
    ([x], j) => at(x, 2, j),
  ),
  op(
    "unsqueeze",
    [[2, 3]],
    (x) => (x as Value).unsqueeze(1),
    [2, 1, 3],
    ([x], i, _, j) => at(x, i, j),
  ),
  op(
    "an input passed through",
    [[2, 3]],
    (x) => x as Value,
    [2, 3],
    ([x], i, j) => at(x, i, j),
  ),
];

test.each(cases)("$name computes what the reference does", async ({ inputs, build, dims, of }) => {
  const graph = new Graph();
  const values = inputs.map((shape, i) => graph.input(`x${i}`, shape));
  const result = build(...values);
  expect(result.shape).toEqual(dims);
  graph.output("y", result);
  const feeds = Object.fromEntries(inputs.map((shape, i) => [`x${i}`, noise(shape, i + 1)]));
  const { y } = await evaluate(engine, graph, feeds);
  const arrays = Object.values(feeds).map(({ dims, data }) => ({ dims, data: Array.from(data as Float32Array) }));
  expect(y?.dims).toEqual(dims);
  const wanted = fill(dims, (...index) => of(arrays, index));
  expect(relativeError(numbers(y), wanted)).toBeLessThan(2e-6);
});

describe("symbolic axes", () => {
  test.each([1, 3])("one graph serves batch %i: an axis moves, splits off a factor and grows", async (batch) => {
    const graph = new Graph();
    const x = graph.input("x", ["batch", 4, 3]);
    const flat = x.reshape(["4*batch", 3]);
    expect(flat.shape).toEqual(["4*batch", 3]);
    graph.output("back", flat.reshape(["batch", 2, 6]));
    graph.output("linear", x.linear(graph.input("w", [2, 3]), null));
    const grown = graph.input("s", ["batch", "rows", 3]).concat([x.chunk(4, 1)[0] as Value], 1);
    expect(grown.shape).toEqual(["batch", "rows+1", 3]);
    graph.output("grown", grown);
    const feeds = { x: noise([batch, 4, 3], 1), w: noise([2, 3], 2), s: noise([batch, 2, 3], 3) };
    const outputs = await evaluate(engine, graph, feeds);
    expect(outputs.back?.dims).toEqual([batch, 2, 6]);
    expect(numbers(outputs.back)).toEqual(numbers(feeds.x));
    expect(outputs.linear?.dims).toEqual([batch, 4, 2]);
    expect(outputs.grown?.dims).toEqual([batch, 3, 3]);
  });

  test("integer inputs index tables", async () => {
    const graph = new Graph();
    graph.output("y", graph.input("x", ["rows", 2]).gather(graph.input("i", ["batch"], "int64")));
    const { y } = await evaluate(engine, graph, { x: noise([3, 2], 1), i: integers([4], [2, 2, 0, 1]) });
    const x = numbers(noise([3, 2], 1));
    expect(numbers(y)).toEqual([2, 2, 0, 1].flatMap((i) => x.slice(2 * i, 2 * i + 2)));
  });
});
