import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { Graph, type QuantizedLocation, toOnnx } from "../../src/graph/index.js";
import { dit, ditConfigFromJson } from "../../src/models/dit.js";
import { stackLinears } from "../../src/tracing/index.js";
import { blocksOf, quantizeMatrix } from "../../src/weights/quantize.js";
import { engineForTests, floats, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const folder = mkdtempSync(join(tmpdir(), "femo-quantized-graph-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A weight [out, width] on disk, and its values as they are there. */
function stored(weights: Float32Array, out: number, width: number, file: string) {
  const { values, scales } = quantizeMatrix(weights, width, "w");
  const blocks = blocksOf(width);
  writeFileSync(join(folder, file), Buffer.concat([Buffer.from(scales.buffer), values]));
  const at = (offset: number, byteLength: number, dtype: string, shape: number[]) => ({
    file,
    offset,
    byteLength,
    dtype,
    shape,
  });
  const storage: QuantizedLocation = {
    scales: at(0, 4 * scales.length, "float32", [out, blocks]),
    values: at(4 * scales.length, values.length, "uint8", [out, blocks, 128]),
  };
  const weight = (o: number, k: number): number => {
    const block = o * blocks + Math.floor(k / 128);
    return (scales[block] as number) * ((values[128 * block + (k % 128)] as number) - 128);
  };
  return { storage, weight };
}

async function linear(
  x: ReturnType<typeof floats>,
  storage: QuantizedLocation,
  out: number,
  bias: Float32Array | null,
) {
  const [rows, width] = x.dims as [number, number];
  const graph = new Graph();
  const b = bias && graph.constant(bias, [out]);
  graph.output("y", graph.input("x", [rows, width]).linear(graph.weight("w", [out, width]), b));
  const session = await engine.load({
    model: toOnnx(graph, () => storage),
    files: [{ name: storage.values.file, at: join(folder, storage.values.file) }],
  });
  const { outputs } = await session.run({ feeds: { x }, fetch: ["y"] });
  await session.release();
  return numbers(outputs.y);
}

describe.each([
  [5, 256, 24, true],
  [1, 128, 16, true],
  [33, 384, 40, false],
  [4, 200, 7, true], // the last block is filled up
  [3, 32, 128, false],
])("a linear layer of %s rows, %s to %s, bias %s, is the float64 product", (rows, width, out, biased) => {
  const bias = biased ? (noise([out], 4).data as Float32Array) : null;
  const product = (x: readonly number[], weight: (o: number, k: number) => number): number[] =>
    Array.from({ length: rows * out }, (_, i) => {
      const [row, o] = [Math.floor(i / out), i % out];
      let sum = bias ? (bias[o] as number) : 0;
      for (let k = 0; k < width; k++) sum += (x[row * width + k] as number) * weight(o, k);
      return sum;
    });

  test("within 1e-5 for inputs that 8 bits hold", async () => {
    const { storage, weight } = stored(noise([out, width], 5).data as Float32Array, out, width, "exact.bin");
    const levels = Array.from({ length: rows * width }, (_, i) => {
      const column = i % width;
      return (column % 128 === 0 ? 127 : ((i * 37) % 255) - 127) / 16;
    });
    const x = floats([rows, width], levels);
    expect(relativeError(await linear(x, storage, out, bias), product(levels, weight))).toBeLessThan(1e-5);
  });

  test("within the rounding of each block of any input to 255 levels", async () => {
    const { storage, weight } = stored(noise([out, width], 6).data as Float32Array, out, width, "any.bin");
    const x = noise([rows, width], 7);
    const inputs = numbers(x);
    const wanted = product(inputs, weight);
    const found = await linear(x, storage, out, bias);
    wanted.forEach((y, i) => {
      const [row, o] = [Math.floor(i / out), i % out];
      let bound = 1e-5;
      for (let start = 0; start < width; start += 128) {
        const block = inputs.slice(row * width + start, row * width + Math.min(start + 128, width));
        const level = Math.max(...block.map(Math.abs)) / 127;
        bound += block.reduce((sum, _, k) => sum + (level / 2) * Math.abs(weight(o, start + k)), 0);
      }
      expect(Math.abs((found[i] as number) - y)).toBeLessThanOrEqual(bound);
    });
  });
});

test("a weight of other blocks than its shape has is refused", async () => {
  const { storage } = stored(new Float32Array(4 * 128), 4, 128, "other.bin");
  const graph = new Graph();
  graph.output("y", graph.input("x", [1, 256]).linear(graph.weight("w", [4, 256]), null));
  expect(await femoError("E_WEIGHT", () => toOnnx(graph, () => storage))).toContain("[4, 2, 128]");
});

test("8 bits are for linear layers: another use of the weight is refused", async () => {
  const { storage } = stored(new Float32Array(4 * 128), 4, 128, "use.bin");
  const graph = new Graph();
  graph.output("y", graph.input("x", [4, 128]).add(graph.weight("w", [4, 128])));
  expect(await femoError("E_GRAPH", () => toOnnx(graph, () => storage))).toMatch(/w is stored in 8 bits.*Add/);
});

test("of a DiT, attention and MLP of every block are the stack's linear layers", () => {
  const parts = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2"];
  const model = dit(ditConfigFromJson({ num_layers: 2, num_attention_heads: 2, attention_head_dim: 4 }));
  const wanted = [0, 1].flatMap((i) => parts.map((part) => `transformer_blocks.${i}.${part}.weight`));
  expect(stackLinears(model).toSorted()).toEqual(wanted.toSorted());
});
