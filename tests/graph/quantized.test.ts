import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { weightsIn } from "../../src/denoising/index.js";
import { Graph, type QuantizedLocation, toOnnx, type WeightLocation } from "../../src/graph/index.js";
import { dit, ditConfigFromJson } from "../../src/models/dit.js";
import { flux } from "../../src/models/flux.js";
import { fluxConfigFromJson } from "../../src/models/flux-config.js";
import { unet } from "../../src/models/unet.js";
import { unetConfigFromJson } from "../../src/models/unet-config.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { keptCheckpoint } from "../../src/platform/node/kept.js";
import { graphWriter } from "../../src/runtime/graph-writer.js";
import { Network } from "../../src/runtime/network.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { modelLinears, networkLinears } from "../../src/tracing/index.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { dequantize, type QuantizedMatrix, quantizeInt4, quantizeInt8 } from "../../src/weights/quantize.js";
import { engineForTests, floats, noise, numbers, relativeError } from "../runtime/helpers.js";
import { femoError, safetensors } from "../weights/helpers.js";

const engine = engineForTests();
const folder = mkdtempSync(join(tmpdir(), "femo-quantized-graph-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A weight on disk, and its values as they are there. */
function stored(matrix: QuantizedMatrix, out: number, width: number, file: string) {
  const { bits, block } = matrix;
  const blocks = Math.ceil(width / block);
  const shapes = {
    scales: [out, blocks],
    minimums: [out, blocks],
    values: [out, blocks, (block * bits) / 8],
    zeros: [out, Math.ceil((blocks * bits) / 8)],
  };
  const bytes: Buffer[] = [];
  const places: Partial<Record<keyof typeof shapes, WeightLocation>> = {};
  let offset = 0;
  for (const part of ["scales", "minimums", "values", "zeros"] as const) {
    const data = matrix[part];
    if (!data) continue;
    bytes.push(Buffer.from(data.buffer));
    const dtype = data instanceof Float32Array ? "float32" : "uint8";
    places[part] = { file, offset, byteLength: data.byteLength, dtype, shape: shapes[part] };
    offset += data.byteLength;
  }
  writeFileSync(join(folder, file), Buffer.concat(bytes));
  const weights = dequantize(matrix, out, width);
  return {
    storage: { bits, block, ...places } as QuantizedLocation,
    weight: (o: number, k: number): number => weights[o * width + k] as number,
  };
}

/** As GGUF's Q4_K and Q5_1: q times a scale, less what is taken from all of a block. */
function withMinimums(bits: 4 | 8): (weights: Float32Array, columns: number) => QuantizedMatrix {
  return (weights, columns) => {
    const blocks = weights.length / 32;
    const [levels, lowest] = bits === 4 ? ([16, 0] as const) : ([32, 112] as const);
    const values = new Uint8Array((weights.length * bits) / 8);
    for (let i = 0; i < weights.length; i++) {
      const q = lowest + ((i * 7 + Math.floor(i / columns)) % levels);
      if (bits === 8) values[i] = q;
      else values[i >> 1] = (values[i >> 1] as number) | (q << (4 * (i & 1)));
    }
    const scales = Float32Array.from({ length: blocks }, (_, i) => (i % 5) / 8);
    const minimums = Float32Array.from({ length: blocks }, (_, i) => ((i % 7) - 1) / 4);
    return { bits, block: 32, values, scales, minimums };
  };
}

const formats: [string, 32 | 128, (weights: Float32Array, columns: number, name: string) => QuantizedMatrix][] = [
  ["8 bits", 128, quantizeInt8],
  ["4 bits", 32, quantizeInt4],
  ["4 bits with minimums", 32, withMinimums(4)],
  ["8 bits with minimums", 32, withMinimums(8)],
];

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

describe.each(["int8", "int4"] as const)("a network in %s", (dtype) => {
  test.each([false, true])("computes with the weights that its checkpoint reads; run once %s", async (once) => {
    const [width, out] = [96, 40];
    const graph = new Graph();
    const hidden = graph
      .input("x", ["rows", width])
      .linear(graph.weight("first", [width, width]), null)
      .silu();
    graph.output("y", hidden.linear(graph.weight("second", [out, width]), graph.weight("bias", [out])));
    const values = noise([(width + out) * width + out], 8).data as Float32Array;
    const header = {
      first: { dtype: "F32", shape: [width, width], data_offsets: [0, 4 * width * width] },
      second: { dtype: "F32", shape: [out, width], data_offsets: [4 * width * width, 4 * (width + out) * width] },
      bias: { dtype: "F32", shape: [out], data_offsets: [4 * (width + out) * width, 4 * values.length] },
    };
    writeFileSync(join(folder, "network.safetensors"), safetensors(header, new Uint8Array(values.buffer)));
    const stored = await openCheckpoint(nodeFolder(folder), "network.safetensors");
    const weights = await keptCheckpoint(
      weightsIn(dtype, stored, () => networkLinears(graph)),
      { folder },
    );
    const network = new Network(graph, graphWriter(weights), new Sessions(engine, Number.POSITIVE_INFINITY), { once });
    const { outputs } = await network.run({ feeds: { x: noise([3, width], 9) }, fetch: ["y"] });
    await network.release();

    const read = new Map<string, Float32Array>();
    for (const name of stored.names()) read.set(name, await weights.readTensor(name));
    const product = (x: number[], name: string): number[] => {
      const matrix = read.get(name) as Float32Array;
      return Array.from({ length: matrix.length / width }, (_, o) =>
        x.reduce((sum, value, k) => sum + value * (matrix[o * width + k] as number), 0),
      );
    };
    const rows = [0, 1, 2].map((row) => numbers(noise([3, width], 9)).slice(row * width, (row + 1) * width));
    const wanted = rows.flatMap((x) => {
      const silu = product(x, "first").map((h) => h / (1 + Math.exp(-h)));
      return product(silu, "second").map((y, o) => y + (read.get("bias")?.[o] as number));
    });
    expect(relativeError(numbers(outputs.y), wanted)).toBeLessThan(0.02); // inputs are rounded to 8 bits
    expect(network.bytes).toBeLessThan(4 * values.length * (dtype === "int4" ? 0.2 : 0.4));
  });
});

const sizes: [rows: number, width: number, out: number, biased: boolean][] = [
  [5, 256, 24, true],
  [1, 128, 16, true],
  [33, 384, 40, false],
  [4, 200, 7, true], // the last block is filled up
  [3, 32, 128, false],
];
const cases = formats.flatMap(([name, block, quantize]) =>
  sizes
    .filter(([, width]) => width % 32 === 0 || !name.includes("minimums"))
    .map((size) => ({ name, block, quantize, size, shown: size.join(", ") })),
);

describe.each(cases)(
  "a linear layer in $name, of rows, inputs, outputs, bias $shown, is the float64 product",
  (one) => {
    const { name, block, quantize, size } = one;
    const [rows, width, out, biased] = size;
    const file = `${name} ${size}.bin`;
    const bias = biased ? (noise([out], 4).data as Float32Array) : null;
    const product = (x: readonly number[], weight: (o: number, k: number) => number): number[] =>
      Array.from({ length: rows * out }, (_, i) => {
        const [row, o] = [Math.floor(i / out), i % out];
        let sum = bias ? (bias[o] as number) : 0;
        for (let k = 0; k < width; k++) sum += (x[row * width + k] as number) * weight(o, k);
        return sum;
      });

    test("within 1e-5 for inputs that 8 bits hold", async () => {
      const { storage, weight } = stored(
        quantize(noise([out, width], 5).data as Float32Array, width, "w"),
        out,
        width,
        file,
      );
      const levels = Array.from({ length: rows * width }, (_, i) => {
        const column = i % width;
        return (column % block === 0 ? 127 : ((i * 37) % 255) - 127) / 16;
      });
      const x = floats([rows, width], levels);
      expect(relativeError(await linear(x, storage, out, bias), product(levels, weight))).toBeLessThan(1e-5);
    });

    test("within the rounding of each block of any input to 255 levels", async () => {
      const matrix = quantize(noise([out, width], 6).data as Float32Array, width, "w");
      const { storage, weight } = stored(matrix, out, width, file);
      // What is taken from all of a block is multiplied with the input as it is.
      const rounded = stored({ ...matrix, minimums: matrix.minimums?.map(() => 0) }, out, width, `only levels ${file}`);
      const x = noise([rows, width], 7);
      const inputs = numbers(x);
      const wanted = product(inputs, weight);
      const found = await linear(x, storage, out, bias);
      wanted.forEach((y, i) => {
        const [row, o] = [Math.floor(i / out), i % out];
        let bound = 1e-5;
        for (let start = 0; start < width; start += block) {
          const neighbours = inputs.slice(row * width + start, row * width + Math.min(start + block, width));
          const level = Math.max(...neighbours.map(Math.abs)) / 127;
          bound += neighbours.reduce((sum, _, k) => sum + (level / 2) * Math.abs(rounded.weight(o, start + k)), 0);
        }
        expect(Math.abs((found[i] as number) - y)).toBeLessThanOrEqual(bound);
      });
    });
  },
);

const zeros = (out: number, width: number, file: string) =>
  stored(quantizeInt8(new Float32Array(out * width), width, "w"), out, width, file).storage;

test("a weight of other blocks than its shape has is refused", async () => {
  const graph = new Graph();
  graph.output("y", graph.input("x", [1, 256]).linear(graph.weight("w", [4, 256]), null));
  const storage = zeros(4, 128, "other.bin");
  expect(await femoError("E_WEIGHT", () => toOnnx(graph, () => storage))).toContain("[4, 2, 128]");
  const half = stored(withMinimums(4)(new Float32Array(4 * 256), 256), 4, 256, "half.bin").storage;
  expect(await femoError("E_WEIGHT", () => toOnnx(graph, () => ({ ...half, bits: 8 })))).toContain("[4, 8, 32]");
});

test("minimums take whole blocks", async () => {
  const graph = new Graph();
  graph.output("y", graph.input("x", [1, 200]).linear(graph.weight("w", [4, 200]), null));
  const { storage } = stored(withMinimums(4)(new Float32Array(4 * 224), 224), 4, 224, "whole.bin");
  expect(await femoError("E_WEIGHT", () => toOnnx(graph, () => storage))).toMatch(
    /whole blocks of 32, found \[4, 200\]/,
  );
});

test("few bits are for linear layers: another use of the weight is refused", async () => {
  const graph = new Graph();
  graph.output("y", graph.input("x", [4, 128]).add(graph.weight("w", [4, 128])));
  const storage = zeros(4, 128, "use.bin");
  expect(await femoError("E_GRAPH", () => toOnnx(graph, () => storage))).toMatch(/w is stored in 8 bits.*Add/);
});

describe("of a DiT", () => {
  const parts = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2"];
  const model = dit(ditConfigFromJson({ num_layers: 2, num_attention_heads: 2, attention_head_dim: 4 }));
  const { main, modulation, other } = modelLinears(model);
  const inBlocks = (names: readonly string[]) =>
    [0, 1].flatMap((i) => names.map((name) => `transformer_blocks.${i}.${name}.weight`)).toSorted();

  test("attention and MLP of every block are the main linear layers", () => {
    expect(main.toSorted()).toEqual(inBlocks(parts));
  });

  test("modulation is that of the blocks; embedders and the last layers are others", () => {
    expect(modulation.toSorted()).toEqual(inBlocks(["norm1.linear"]));
    const embedders = [1, 2].map((i) => `norm1.emb.timestep_embedder.linear_${i}`);
    expect(other.toSorted()).toEqual(["proj_out_1.weight", "proj_out_2.weight", ...inBlocks(embedders)].toSorted());
  });
});

test("of FLUX, double and single blocks are main, their modulation apart, embedders and the last layers others", () => {
  const sizes = { num_layers: 1, num_single_layers: 1, num_attention_heads: 2, attention_head_dim: 128 };
  const { main, modulation, other } = modelLinears(flux(fluxConfigFromJson(sizes)));
  const parts = (stem: string, names: string) => names.split(" ").map((name) => `${stem}.${name}.weight`);
  const ff = "net.0.proj net.2";
  const double = "transformer_blocks.0";
  const single = "single_transformer_blocks.0";
  const attention = "to_q to_k to_v to_out.0 add_q_proj add_k_proj add_v_proj to_add_out";
  expect(main.toSorted()).toEqual(
    [
      ...parts(`${double}.attn`, attention),
      ...[`${double}.ff`, `${double}.ff_context`].flatMap((stem) => parts(stem, ff)),
      ...parts(single, "attn.to_q attn.to_k attn.to_v proj_mlp proj_out"),
    ].toSorted(),
  );
  expect(modulation.toSorted()).toEqual(
    [...parts(double, "norm1.linear norm1_context.linear"), ...parts(single, "norm.linear")].toSorted(),
  );
  const embedders = ["timestep", "guidance", "text"].flatMap((of) =>
    parts(`time_text_embed.${of}_embedder`, "linear_1 linear_2"),
  );
  const ends = ["x_embedder", "context_embedder", "norm_out.linear", "proj_out"].map((name) => `${name}.weight`);
  expect(other.filter((name) => !embedders.includes(name)).toSorted()).toEqual(ends.toSorted());
});

test("of a U-Net, transformers and what they make of the prompt are main, what residual blocks are told is modulation", () => {
  const { main, modulation, other } = modelLinears(
    unet(
      unetConfigFromJson({
        ...{ block_out_channels: [8, 16], down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D"] },
        ...{ up_block_types: ["CrossAttnUpBlock2D", "UpBlock2D"], layers_per_block: 1, attention_head_dim: 2 },
        ...{
          norm_num_groups: 2,
          cross_attention_dim: 12,
          use_linear_projection: true,
          addition_embed_type: "text_time",
        },
        ...{ addition_time_embed_dim: 4, projection_class_embeddings_input_dim: 38 },
      }),
    ),
  );
  const blocks = [
    "down_blocks.1.attentions.0",
    "mid_block.attentions.0",
    ...[0, 1].map((i) => `up_blocks.0.attentions.${i}`),
  ];
  const [attention, ff] = [
    ["to_q", "to_k", "to_v", "to_out.0"],
    ["net.0.proj", "net.2"],
  ];
  const layers = [
    ...[1, 2].flatMap((i) => attention.map((name) => `attn${i}.${name}`)),
    ...ff.map((name) => `ff.${name}`),
  ];
  const parts = ["proj_in", "proj_out", ...layers.map((name) => `transformer_blocks.0.${name}`)];
  const wanted = blocks.flatMap((block) => parts.map((part) => `${block}.${part}.weight`));
  expect(main.toSorted()).toEqual(wanted.toSorted());
  const resnets = ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"].flatMap((block) =>
    Array.from({ length: /^down/.test(block) ? 1 : 2 }, (_, i) => `${block}.resnets.${i}.time_emb_proj.weight`),
  );
  expect(modulation.toSorted()).toEqual(resnets.toSorted());
  const embedders = ["time_embedding", "add_embedding"].flatMap((of) => [1, 2].map((i) => `${of}.linear_${i}.weight`));
  expect(other.toSorted()).toEqual(embedders.toSorted());
});

test("of a network alone all linear layers are main, but not what is looked up too", () => {
  const graph = new Graph();
  const table = graph.weight("table", [8, 4]);
  const x = graph.input("x", [2, 4]).linear(graph.weight("w", [4, 4]), null);
  graph.output("y", x.linear(table, null).concat([table.gather(graph.input("i", [2], "int64"))], 1));
  expect(networkLinears(graph)).toEqual({ main: ["w"], modulation: [], other: [] });
});
