import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { nodesInHalf, type Precision } from "../../src/graph/half.js";
import { Graph, toOnnx, type Value } from "../../src/graph/index.js";
import { traceCut, traceFeatureKernel } from "../../src/tracing/index.js";
import { float16Bits } from "../../src/weights/float16.js";
import { embeddedFolder, openModel } from "../models/tiny.js";
import { engineForTests, floats, noise, openWeights, relativeError } from "../runtime/helpers.js";
import { safetensors } from "../weights/helpers.js";

const engine = engineForTests();
const folder = mkdtempSync(join(tmpdir(), "femo-half-"));
afterAll(() => rmSync(folder, { recursive: true }));
const [ROWS, WIDTH, HIDDEN] = [6, 16, 32];

const random = (graph: Graph, shape: readonly number[], seed: number): Value => {
  const { data } = noise(shape, seed);
  return graph.constant(
    (data as Float32Array).map((x) => x / 4),
    shape,
  );
};

/** A feed-forward block with its sum, whose inside is given out too. */
function block(): Graph {
  const graph = new Graph();
  const x = graph.input("x", ["rows", WIDTH]);
  const inside = x
    .layerNorm(1e-6)
    .linear(random(graph, [HIDDEN, WIDTH], 1), random(graph, [HIDDEN], 2))
    .gelu("tanh");
  graph.output("y", x.add(inside.linear(random(graph, [WIDTH, HIDDEN], 3), null)));
  graph.output("inside", inside);
  graph.output("again", inside);
  return graph;
}

async function run(graph: Graph, precision: Precision, x: Float32Array) {
  const session = await engine.load({ model: toOnnx(graph, () => undefined, { precision }), files: [] });
  const { outputs } = await session.run({
    feeds: { x: floats([ROWS, WIDTH], x) },
    fetch: graph.outputs.map(({ name }) => name),
  });
  return outputs;
}

describe("products in float16", () => {
  const x = noise([ROWS, WIDTH], 4).data as Float32Array;

  test("give what float32 gives, rounded on the way, and float32 to those who ask", async () => {
    const [whole, half] = [await run(block(), "float32", x), await run(block(), "float16", x)];
    for (const name of ["y", "inside", "again"]) {
      const [wanted, found] = [whole[name], half[name]];
      expect(found).toMatchObject({ dtype: "float32", dims: wanted?.dims });
      const error = relativeError(found?.data as Float32Array, wanted?.data as Float32Array);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(1e-3);
    }
    expect(half.again?.data).toEqual(half.inside?.data);
  });

  test("leave sums alone that are beyond float16", async () => {
    const { y } = await run(
      block(),
      "float16",
      x.map((value) => 1e6 * value),
    );
    expect(
      relativeError(
        y?.data as Float32Array,
        (
          await run(
            block(),
            "float32",
            x.map((v) => 1e6 * v),
          )
        ).y?.data as Float32Array,
      ),
    ).toBeLessThan(1e-6);
  });

  test("take weights as they are stored, of whatever type", async () => {
    const values = [0.5, -1, 0.25, 3, 0, -0.125];
    const words = Float32Array.from(values);
    const stored = {
      F32: new Uint8Array(words.buffer),
      F16: new Uint8Array(Uint16Array.from(values, float16Bits).buffer),
      BF16: new Uint8Array(Uint16Array.from(new Uint32Array(words.buffer), (word) => word >>> 16).buffer),
    };
    for (const [dtype, bytes] of Object.entries(stored)) {
      const header = { w: { dtype, shape: [2, 3], data_offsets: [0, bytes.length] } };
      writeFileSync(join(folder, `${dtype}.safetensors`), safetensors(header, bytes));
      const weights = await openWeights(folder, `${dtype}.safetensors`);
      const graph = new Graph();
      const w = graph.weight("w", [2, 3]);
      graph.output("y", graph.input("x", [1, 3]).linear(w, null));
      graph.output("sum", w.add(graph.scalar(1))); // one who takes it in float32
      const model = toOnnx(graph, weights.locate as Parameters<typeof toOnnx>[1], { precision: "float16" });
      const session = await engine.load({ model, files: weights.files });
      const { outputs } = await session.run({ feeds: { x: floats([1, 3], [1, 2, 4]) }, fetch: ["y", "sum"] });
      expect(Array.from(outputs.y?.data as Float32Array)).toEqual([-0.5, 2.5]);
      expect(Array.from(outputs.sum?.data as Float32Array)).toEqual(values.map((value) => value + 1));
    }
  });
});

describe("in a model", async () => {
  const { model } = await openModel(engine, embeddedFolder);
  const opsOf = (graph: Graph): { half: string[]; whole: string[] } => {
    const { nodes } = graph.reachable();
    const half = nodesInHalf(nodes, () => false);
    const names = (wanted: boolean) => [
      ...new Set(nodes.flatMap((node) => (half.has(node) === wanted ? [node.op] : []))),
    ];
    return { half: names(true), whole: names(false) };
  };

  test("products are, and norms, sums and gates are not", () => {
    const { half, whole } = opsOf(traceCut(model, {}).graph);
    expect(half).toEqual(expect.arrayContaining(["Gemm", "Conv", "MultiHeadAttention", "Gelu"]));
    for (const op of ["Gemm", "Conv", "MultiHeadAttention"]) expect(whole).not.toContain(op);
    for (const op of ["Add", "Mul", "LayerNormalization"]) expect(half).not.toContain(op);
  });

  test("what moves the state of a feature is not", () => {
    const kernel = traceFeatureKernel({ history: 2, averages: 1, measure: true, update: true });
    const written = (precision: Precision) => toOnnx(kernel, () => undefined, { precision });
    expect(written("float16")).toEqual(written("float32"));
  });
});
