import { describe, expect, test } from "vitest";
import { weightsIn } from "../../src/denoising/index.js";
import { Graph } from "../../src/graph/index.js";
import { graphWriter } from "../../src/runtime/graph-writer.js";
import {
  Checkpoint,
  type DerivedTensor,
  isDerived,
  isPacked,
  matrixInBits,
  memoryByteSource,
  type PackedMatrix,
  packedMatrix,
  recipeOf,
  rowsOf,
  storedBytes,
} from "../../src/weights/index.js";
import { dequantize, type QuantizedMatrix, quantizeInt4, quantizeInt8 } from "../../src/weights/quantize.js";
import { noise } from "../runtime/helpers.js";
import { femoError, safetensors } from "./helpers.js";

const floatBytes = (values: Iterable<number>): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
const weights = noise([6, 64], 3).data as Float32Array;

/** float32 "w" and "v" [6, 64], with the same values, and "bias" [6]. */
function opened(): Promise<Checkpoint> {
  const header = {
    w: { dtype: "F32", shape: [6, 64], data_offsets: [0, 1536] },
    v: { dtype: "F32", shape: [6, 64], data_offsets: [1536, 3072] },
    bias: { dtype: "F32", shape: [6], data_offsets: [3072, 3096] },
  };
  const data = floatBytes([...weights, ...weights, 1, 2, 3, 4, 5, 6]);
  return Checkpoint.fromSources("c", [memoryByteSource("f", safetensors(header, data))]);
}

const doubled = (checkpoint: Checkpoint, name: string): DerivedTensor => ({
  name,
  dtype: "float32",
  shape: checkpoint.get(name)?.shape ?? [],
  recipe: JSON.stringify(["doubled", recipeOf(checkpoint.get(name) ?? expect.fail())]),
  files: ["f"],
  make: async () => floatBytes((await checkpoint.readTensor(name)).map((x) => 2 * x)),
});

/** A matrix in 4 bits with minimums. */
const matrix: QuantizedMatrix = {
  ...{ bits: 4, block: 32 },
  values: Uint8Array.from({ length: 192 }, (_, i) => (i * 53) % 256),
  scales: Float32Array.from({ length: 12 }, (_, i) => 0.1 * i - 0.3),
  minimums: Float32Array.from({ length: 12 }, (_, i) => 0.7 - 0.2 * i),
};
const ofMinimums = (make: () => Promise<QuantizedMatrix> = async () => matrix): PackedMatrix =>
  packedMatrix({ name: "w", shape: [6, 64], bits: 4, block: 32, has: ["minimums"], recipe: "m", files: ["f"], make });

const expected = ["w", "v"].map((name) => ({ name, shape: [6, 64] })).concat([{ name: "bias", shape: [6] }]);

describe("a computed tensor", () => {
  test("stands in the place of a stored one, or beside them", async () => {
    const checkpoint = await opened();
    const changed = checkpoint.withDerived([doubled(checkpoint, "bias"), { ...doubled(checkpoint, "w"), name: "new" }]);
    expect(changed.names()).toEqual(["w", "v", "bias", "new"]);
    expect([...(await changed.readTensor("bias"))]).toEqual([2, 4, 6, 8, 10, 12]);
    expect(await changed.readTensor("new")).toEqual(weights.map((x) => 2 * x));
    expect(await changed.readTensor("w")).toEqual(weights);
    changed.verify([...expected, { name: "new", shape: [6, 64] }]);
    expect(await femoError("E_WEIGHT", () => changed.verify(expected))).toContain('"new" [6, 64]');
    expect([...changed.derived().keys()]).toEqual(["bias", "new"]);
    expect([...(await checkpoint.readTensor("bias"))]).toEqual([1, 2, 3, 4, 5, 6]); // as it was
  });

  test("may be made from a computed one, and go by another name", async () => {
    const once = (await opened()).withDerived([doubled(await opened(), "bias")]);
    const twice = once.withDerived([doubled(once, "bias")]);
    const renamed = twice.withTensors(twice.tensors().map((tensor) => ({ ...tensor, name: `model.${tensor.name}` })));
    expect([...(await renamed.readTensor("model.bias"))]).toEqual([4, 8, 12, 16, 20, 24]);
    const recipes = [once, twice].map((of) => recipeOf(of.get("bias") ?? expect.fail()));
    expect(new Set(recipes).size).toBe(2);
  });

  test("that is in no file yet is no weight of a graph, and the error says what to do", async () => {
    const checkpoint = await opened();
    const graph = new Graph();
    graph.output("y", graph.input("x", [1, 64]).linear(graph.weight("w", [6, 64]), graph.weight("bias", [6])));
    for (const tensor of [doubled(checkpoint, "bias"), matrixInBits(checkpoint, "w", 8)]) {
      const inFolder = checkpoint.tensors().map((stored) => ({ ...stored, file: "/m/f" }));
      const writer = graphWriter(checkpoint.withTensors(inFolder).withDerived([tensor]));
      expect(await femoError("E_WEIGHT", () => writer.write(graph))).toMatch(/is computed.*Keep it.*Platform\.kept/s);
    }
  });
});

describe("a matrix in few bits", () => {
  test.each([
    [8, quantizeInt8, 6 * 128 + 4 * 6],
    [4, quantizeInt4, 6 * 32 + 4 * 12 + 6],
  ] as const)("in %s bits reads as the float32 values that it stands for", async (bits, quantize, bytes) => {
    const checkpoint = await opened();
    const packed = checkpoint.withDerived([matrixInBits(checkpoint, "w", bits)]);
    const wanted = dequantize(quantize(weights, 64, "w"), 6, 64);
    expect(await packed.readTensor("w")).toEqual(wanted);
    expect(await packed.readBytes("w")).toEqual(floatBytes(wanted));
    packed.verify(expected);
    expect(storedBytes(packed.get("w") as PackedMatrix)).toBe(bytes);
    expect(graphWriter(packed.withTensors([packed.get("w") as PackedMatrix])).bytesOf("w")).toBe(bytes / (6 * 64));
  });

  test("with minimums: w = scale (q - 8) - minimum, the lower half of a byte first", async () => {
    const found = await (await opened()).withDerived([ofMinimums()]).readTensor("w");
    found.forEach((w, i) => {
      const q = ((matrix.values[i >> 1] as number) >> (4 * (i & 1))) & 15;
      const [scale, minimum] = [matrix.scales, matrix.minimums as Float32Array].map((of) => of[i >> 5] as number);
      expect(w).toBeCloseTo((scale as number) * (q - 8) - (minimum as number), 5);
    });
  });

  test("is computed once for all of its parts, taken in turn", async () => {
    let times = 0;
    const { parts } = ofMinimums(async () => {
      times++;
      return matrix;
    });
    const made = [];
    for (const part of Object.values(parts)) made.push(await (part as DerivedTensor).make());
    expect(made).toEqual([matrix.values, floatBytes(matrix.scales), floatBytes(matrix.minimums ?? [])]);
    expect(times).toBe(1);
    expect(await (parts.scales as DerivedTensor).make()).toEqual(floatBytes(matrix.scales));
    expect(times).toBe(2); // nothing is held for long
  });

  test("what is no matrix is refused", async () => {
    const checkpoint = await opened();
    const run = (name: string) => femoError("E_WEIGHT", () => matrixInBits(checkpoint, name, 8));
    expect(await run("bias")).toContain('a matrix named "bias", found [6]');
    expect(await run("absent")).toContain("found nothing");
  });

  test("two tensors that would be kept by one name are refused", async () => {
    const checkpoint = await opened();
    const clash = { ...doubled(checkpoint, "bias"), name: "w.scales" };
    const both = checkpoint.withDerived([matrixInBits(checkpoint, "w", 8), clash]);
    expect(await femoError("E_WEIGHT", () => both.derived())).toContain('"w.scales"');
  });
});

test.each(["stored", "computed", "in 8 bits", "in 4 bits", "with minimums"])("rows of a tensor %s", async (kind) => {
  const checkpoint = await opened();
  const tensor = {
    stored: checkpoint.get("w"),
    computed: doubled(checkpoint, "w"),
    "in 8 bits": matrixInBits(checkpoint, "w", 8),
    "in 4 bits": matrixInBits(checkpoint, "w", 4),
    "with minimums": ofMinimums(),
  }[kind] as PackedMatrix;
  const whole = await checkpoint.withTensors([tensor]).readTensor("w");
  const part = rowsOf(tensor, 2, 5);
  const cut = checkpoint.withTensors([part]);
  cut.verify([{ name: "w", shape: [3, 64] }]);
  expect(await cut.readTensor("w")).toEqual(whole.slice(2 * 64, 5 * 64));
  expect(recipeOf(part)).not.toBe(recipeOf(tensor));
  expect(storedBytes(part)).toBe(storedBytes(tensor) / 2);
});

describe("weights in a type", () => {
  const linears = { main: ["w"], modulation: ["v"], other: [] };
  const bitsOf = (checkpoint: Checkpoint) =>
    ["w", "v", "bias"].map((name) => {
      const tensor = checkpoint.get(name) ?? expect.fail();
      return isPacked(tensor) ? `${tensor.bits}` : isDerived(tensor) ? "computed" : "stored";
    });

  test("float32 leaves them, int8 takes the main layers and modulation, int4 the former in 4 bits", async () => {
    const checkpoint = await opened();
    expect(bitsOf(weightsIn("float32", checkpoint, () => linears))).toEqual(["stored", "stored", "stored"]);
    expect(bitsOf(weightsIn("int8", checkpoint, () => linears))).toEqual(["8", "8", "stored"]);
    expect(bitsOf(weightsIn("int4", checkpoint, () => linears))).toEqual(["4", "8", "stored"]);
  });

  test("what is in few bits already stays, and is unpacked where no layer multiplies with it", async () => {
    const checkpoint = (await opened()).withDerived([ofMinimums(), { ...ofMinimums(), name: "v" }]);
    for (const dtype of ["float32", "int8", "int4"] as const) {
      const found = weightsIn(dtype, checkpoint, () => ({ main: ["w"], modulation: [], other: [] }));
      expect(bitsOf(found)).toEqual(["4", "computed", "stored"]);
      expect(found.get("w")).toBe(checkpoint.get("w"));
      expect(await found.readTensor("v")).toEqual(await checkpoint.readTensor("v"));
    }
    expect(bitsOf(weightsIn("int8", checkpoint, () => ({ main: [], modulation: [], other: ["w", "v"] })))).toEqual([
      "4",
      "4",
      "stored",
    ]);
  });
});
