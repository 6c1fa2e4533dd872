import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Graph, toOnnx, type Value } from "../../src/graph/index.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { engineForTests, evaluate, integers, noise, numbers, openWeights, weightsOf } from "../runtime/helpers.js";
import { femoError, goldens, safetensors } from "../weights/helpers.js";

test("nodes know the parts in which they were made, outermost first", () => {
  const graph = new Graph();
  const part = (name: string) => ({ kind: "part", name });
  const x = graph.input("x", [2]);
  const inner = graph.within(part("block"), () => graph.within(part("head"), () => x.silu()).add(x));
  graph.output("y", inner.mul(x));
  const parts = graph.reachable().nodes.map(({ op, parts }) => [op, ...parts.map(({ name }) => name)]);
  expect(parts).toEqual([["Sigmoid", "block", "head"], ["Mul", "block", "head"], ["Add", "block"], ["Mul"]]);
});

describe("shapes that do not fit are errors that name them", () => {
  const bad: [string, (g: Graph) => unknown, string[]][] = [
    ["add", (g) => g.input("x", [2, 3]).add(g.input("y", [4])), ["Add", "[2, 3]", "[4]"]],
    ["symbols", (g) => g.input("x", ["batch", 3]).mul(g.input("y", ["rows", 3])), ["Mul", "batch", "rows"]],
    ["matMul", (g) => g.input("x", [2, 3]).matMul(g.input("y", [4, 2])), ["matMul", "[2, 3]", "[4, 2]"]],
    ["linear", (g) => g.input("x", [2, 3]).linear(g.weight("w", [5, 4]), null), ["linear", "[2, 3]", "[5, 4]"]],
    ["reshape", (g) => g.input("x", ["batch", 3]).reshape(["batch", 4]), ["reshape", "[batch, 3]", "[batch, 4]"]],
    ["two axes", (g) => g.input("x", ["a", "b"]).reshape(["b", "a"]), ["reshape", "[a, b]", "[b, a]"]],
    ["chunk", (g) => g.input("x", [2, 5]).chunk(2, 1), ["chunk", "[2, 5]", "2"]],
    ["chunk of a symbol", (g) => g.input("x", ["batch", 5]).chunk(2, 0), ["chunk", "[batch, 5]"]],
    [
      "heads",
      (g) => g.input("x", [1, 2, 5]).attention(g.input("k", [1, 2, 5]), g.input("v", [1, 2, 5]), 2),
      ["[1, 2, 5]", "2"],
    ],
    [
      "patches",
      (g) => g.input("x", [1, 3, 5, 4]).patchConv(g.weight("w", [8, 3, 2, 2]), null),
      ["[1, 3, 5, 4]", "[8, 3, 2, 2]"],
    ],
    ["constant", (g) => g.constant(new Float32Array(5), [2, 3]), ["[2, 3]", "6", "5"]],
    ["one name, two shapes", (g) => [g.input("x", [2]), g.input("x", [3])], ["x", "[2]", "[3]"]],
    ["one weight, two shapes", (g) => [g.weight("w", [2]), g.weight("w", [2, 1])], ["w", "[2]", "[2, 1]"]],
    ["two outputs of a name", (g) => [1, 2].map((n) => g.output("y", g.input(`x${n}`, [n]))), ['"y"']],
    ["another graph", (g) => g.input("x", [2]).add(new Graph().input("z", [2])), ['"z"']],
  ];
  test.each(bad)("%s", async (_, build, parts) => {
    const message = await femoError("E_GRAPH", () => build(new Graph()));
    for (const part of parts) expect(message).toContain(part);
  });
});

describe("shapes of parameters and of further operands that do not fit", () => {
  test.each<[string, (g: Graph) => unknown]>([
    ["concat", (g) => g.input("x", [2, 3]).concat([g.input("y", [2, 4])], 0)],
    ["bias of linear", (g) => g.input("x", [2, 3]).linear(g.weight("w", [5, 3]), g.weight("b", [4]))],
    ["scale of layerNorm", (g) => g.input("x", [2, 3]).layerNorm(1e-6, g.weight("s", [4]))],
    ["keys and values", (g) => g.input("q", [1, 2, 4]).attention(g.input("k", [1, 5, 4]), g.input("v", [1, 6, 4]), 2)],
    ["permutation", (g) => g.input("x", [2, 3]).transpose([1, 1])],
  ])("%s", async (_, build) => {
    await femoError("E_GRAPH", () => build(new Graph()));
  });
});

test("what no output reaches is not written", () => {
  const graph = new Graph();
  const x = graph.input("x", [2, 3]);
  x.linear(graph.weight("dead.weight", [4, 3]), null).add(graph.input("dead-input", [4]));
  graph.output("y", x.linear(graph.weight("live.weight", [4, 3]), null));
  const { nodes, inputs, weights } = graph.reachable();
  expect(nodes.map((node) => node.op)).toEqual(["Gemm"]);
  expect(inputs.map((value) => value.name)).toEqual(["x"]);
  expect(weights.map((value) => value.name)).toEqual(["live.weight"]);
  const written = Buffer.from(
    toOnnx(graph, () => ({ file: "f", offset: 0, byteLength: 48, dtype: "float32", shape: [4, 3] })),
  ).toString("latin1");
  expect(written).toContain("live.weight");
  expect(written).not.toContain("dead");
});

test("a value is written once, however often it is used", () => {
  const graph = new Graph();
  let x = graph.input("x", [2]);
  for (let i = 0; i < 40; i++) x = x.add(x); // 2^40 paths
  graph.output("y", x);
  expect(graph.reachable().nodes).toHaveLength(40);
});

describe("weights stay in the checkpoint's file", () => {
  const engine = engineForTests();
  const folder = mkdtempSync(join(tmpdir(), "femo-graph-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  // Of at most 8 significant bits, so that every type holds them exactly.
  const values = [1.5, -2, 0.25, 0, 3, -0.0078125, 96, -1.25];
  const half = (x: number): number => {
    if (x === 0) return 0;
    const exponent = Math.floor(Math.log2(Math.abs(x)));
    return (x < 0 ? 0x8000 : 0) | ((exponent + 15) << 10) | ((Math.abs(x) / 2 ** exponent - 1) * 1024);
  };
  const float32 = new Uint8Array(Float32Array.from(values).buffer);
  const bfloat16 = Uint8Array.from({ length: 16 }, (_, i) => float32[4 * (i >> 1) + 2 + (i & 1)] as number);
  const float16 = new Uint8Array(Uint16Array.from(values, half).buffer);

  beforeAll(() => {
    const parts = { "a.bytes": Uint8Array.of(1, 2, 3), w32: float32, w16: float16, wb16: bfloat16 };
    const types = { "a.bytes": "U8", w32: "F32", w16: "F16", wb16: "BF16" };
    let end = 0;
    const header = Object.fromEntries(
      Object.entries(parts).map(([name, bytes]) => {
        const start = end;
        end += bytes.length;
        return [
          name,
          {
            dtype: types[name as keyof typeof types],
            shape: name === "a.bytes" ? [3] : [2, 4],
            data_offsets: [start, end],
          },
        ];
      }),
    );
    const text = JSON.stringify(header);
    const padded = text.length % 2 === 0 ? text : `${text} `; // even: the 3 bytes make the rest odd
    writeFileSync(join(folder, "odd.safetensors"), safetensors(padded, Buffer.concat(Object.values(parts))));
  });

  test.each(["float8_e4m3fn", "float8_e5m2"])("%s: all 256 of them", async (name) => {
    const checkpoint = await openCheckpoint(nodeFolder(goldens), "dtypes.safetensors");
    const graph = new Graph();
    const one = graph.constant(Float32Array.of(1), [1]);
    graph.output("w", graph.weight(name, [256]).mul(one));
    const { w } = await evaluate(engine, graph, {}, weightsOf(checkpoint));
    expect(numbers(w)).toEqual([...(await checkpoint.readTensor(name))]); // NaN equals NaN, -0 differs from 0
  });

  test.each(["w32", "w16", "wb16"])("%s at an odd offset gives its numbers", async (name) => {
    const weights = await openWeights(folder, "odd.safetensors");
    expect((weights.locate(name)?.offset as number) % 2).toBe(1);
    const graph = new Graph();
    graph.output("w", graph.weight(name, [2, 4]));
    graph.output("y", graph.input("x", [1, 4]).linear(graph.weight(name, [2, 4]), null));
    const x = noise([1, 4], 1);
    const outputs = await evaluate(engine, graph, { x }, weights);
    expect(numbers(outputs.w)).toEqual(values);
    const wanted = [0, 4].map((row) => numbers(x).reduce((sum, v, i) => sum + v * (values[row + i] as number), 0));
    numbers(outputs.y).forEach((y, i) => {
      expect(y).toBeCloseTo(wanted[i] as number, 4);
    });
  });

  test.each(["w32", "w16", "wb16"])(
    "rows of %s become float32 as they are read, whatever else reads it",
    async (name) => {
      const weights = await openWeights(folder, "odd.safetensors");
      const casts = (graph: Graph): number =>
        Buffer.from(toOnnx(graph, weights.locate as Parameters<typeof toOnnx>[1]))
          .toString("latin1")
          .split(":stored").length - 1;
      const rows = (others: (graph: Graph, weight: Value) => void = () => {}): Graph => {
        const graph = new Graph();
        const weight = graph.weight(name, [2, 4]);
        graph.output("rows", weight.gather(graph.input("ids", [3], "int64")));
        others(graph, weight);
        return graph;
      };
      const ids = integers([3], [1, 0, 1]);
      const wanted = [...values.slice(4), ...values.slice(0, 4), ...values.slice(4)];
      const alone = rows();
      const given = rows((graph, weight) => graph.output("w", weight));
      expect(casts(alone) > 0).toBe(name !== "w32");
      expect(casts(given)).toBe(0);
      expect(numbers((await evaluate(engine, alone, { ids }, weights)).rows)).toEqual(wanted);
      const outputs = await evaluate(engine, given, { ids }, weights);
      expect([numbers(outputs.rows), numbers(outputs.w)]).toEqual([wanted, values]);
    },
  );

  test("a weight that is not there or has another shape is an error with both shapes", async () => {
    const weights = await openWeights(folder, "odd.safetensors");
    const graphOf = (name: string, shape: number[]): Graph => {
      const graph = new Graph();
      graph.output("y", graph.weight(name, shape) as Value);
      return graph;
    };
    const locate = weights.locate as Parameters<typeof toOnnx>[1];
    expect(await femoError("E_WEIGHT", () => toOnnx(graphOf("absent", [2]), locate))).toMatch(/absent.*\[2\].*nothing/);
    expect(await femoError("E_WEIGHT", () => toOnnx(graphOf("w32", [8]), locate))).toMatch(/w32.*\[8\].*\[2, 4\]/);
  });
});
