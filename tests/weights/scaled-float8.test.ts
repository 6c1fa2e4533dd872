import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { Checkpoint, isDerived, memoryByteSource, toFloat32 } from "../../src/weights/index.js";
import { Renaming } from "../../src/weights/renamed.js";
import { separateScales } from "../../src/weights/scaled-float8.js";
import { femoError, safetensors } from "./helpers.js";

interface Stored {
  readonly dtype: string;
  readonly shape: number[];
  readonly bytes: Uint8Array;
}
const float32 = (...values: number[]): Stored => ({
  dtype: "F32",
  shape: [],
  bytes: new Uint8Array(Float32Array.from(values).buffer),
});
const float8 = (shape: number[], ...bytes: number[]): Stored => ({
  dtype: "F8_E4M3",
  shape,
  bytes: Uint8Array.from(bytes),
});
const text = (json: unknown): Stored => {
  const bytes = new TextEncoder().encode(typeof json === "string" ? json : JSON.stringify(json));
  return { dtype: "U8", shape: [bytes.length], bytes };
};
const weight = float8([2, 2], 0x38, 0xb8, 0x01, 0x7e); // 1, -1, 2⁻⁹, 448
const values = [1, -1, 2 ** -9, 448];
const marker: Stored = { dtype: "F8_E4M3", shape: [0], bytes: new Uint8Array(0) };
const description = text({ format: "float8_e4m3fn" });

function fileOf(tensors: Readonly<Record<string, Stored>>, metadata?: unknown): Uint8Array {
  let end = 0;
  const entries = Object.entries(tensors).map(([name, { dtype, shape, bytes }]) => {
    end += bytes.length;
    return [name, { dtype, shape, data_offsets: [end - bytes.length, end] }];
  });
  const header = { ...(metadata !== undefined && { __metadata__: metadata }), ...Object.fromEntries(entries) };
  return safetensors(header, Buffer.concat(Object.values(tensors).map(({ bytes }) => bytes)));
}
const open = (tensors: Readonly<Record<string, Stored>>, metadata?: unknown) =>
  Checkpoint.fromSources("t5.safetensors", [memoryByteSource("t5.safetensors", fileOf(tensors, metadata))]);
const separate = async (tensors: Readonly<Record<string, Stored>>) => separateScales(await open(tensors));

describe("a weight with a scale is its product with it, to the nearest float32", () => {
  const scale = Math.fround(0.1);
  const scaled = values.map((value) => Math.fround(value * scale));
  test.each<[string, Record<string, Stored>]>([
    [
      "scale_weight",
      { scaled_fp8: marker, "a.weight": weight, "a.scale_weight": float32(scale), "a.scale_input": float32(9) },
    ],
    [
      "weight_scale",
      {
        "a.weight": weight,
        "a.weight_scale": { ...float32(scale), shape: [1] },
        "a.input_scale": float32(9),
        "a.comfy_quant": description,
      },
    ],
    [
      "a marker of an older kind",
      { scaled_fp8: { ...float32(1, 1), shape: [2] }, "a.weight": weight, "a.scale_weight": float32(scale) },
    ],
  ])("%s", async (_, stored) => {
    const { checkpoint, scales } = await separate({ ...stored, "a.bias": float32(3) });
    expect(checkpoint.names()).toEqual(["a.weight", "a.bias"]);
    const renaming = new Renaming({ checkpoint, scales });
    renaming.take("b.weight", "a.weight");
    renaming.take("last.weight", "a.weight", [1, 2]);
    renaming.take("b.bias", "a.bias");
    renaming.takeSwapped("swapped.weight", "a.weight");
    const tensors = renaming.checkpoint().tensors();
    const derived = tensors.filter(isDerived);
    expect(tensors.filter((tensor) => !isDerived(tensor)).map(({ name }) => name)).toEqual(["b.bias"]);
    const found = [];
    for (const { name, dtype, shape, make } of derived) {
      found.push([name, shape, [...toFloat32(await make(), dtype, name)]]);
    }
    expect(found).toEqual([
      ["b.weight", [2, 2], scaled],
      ["last.weight", [1, 2], scaled.slice(2)],
      ["swapped.weight", [2, 2], [...scaled.slice(2), ...scaled.slice(0, 2)]],
    ]);
    expect(new Set(derived.map(({ recipe }) => recipe)).size).toBe(3);
  });
});

test("a file without scales stays as it is", async () => {
  const { checkpoint, scales } = await separate({ "a.weight": weight, "norm.scale": float32(1) });
  expect(checkpoint.names()).toEqual(["a.weight", "norm.scale"]);
  expect(scales.size).toBe(0);
  const renaming = new Renaming({ checkpoint, scales });
  renaming.takeSwapped("b", "a.weight");
  const swapped = renaming.checkpoint();
  expect(swapped.get("b")).toMatchObject({ dtype: "float8_e4m3fn" });
  expect([...(await swapped.readBytes("b"))]).toEqual([0x01, 0x7e, 0x38, 0xb8]);
});

test("embeddings, bias tables and vectors need no scale", async () => {
  const names = ["shared", "encoder.embed_tokens", "x.relative_attention_bias"].map((name) => [
    `${name}.weight`,
    weight,
  ]);
  const tensors = { scaled_fp8: marker, ...Object.fromEntries(names), "a.bias": float8([1], 0x38) };
  expect((await separate(tensors)).checkpoint.names()).toHaveLength(4);
});

test.each<[string, Record<string, Stored>, RegExp]>([
  [
    "a scale without its weight",
    { "a.scale_weight": float32(1) },
    /"a\.scale_weight".* a weight "a\.weight".* found none/,
  ],
  [
    "a scale of a weight in another type",
    { "a.weight": { ...weight, dtype: "I8" }, "a.weight_scale": float32(1) },
    /"a\.weight_scale".*found int8/,
  ],
  ["a weight without scale", { scaled_fp8: marker, "a.weight": weight }, /1 have none[\s\S]*"a\.weight"/],
  [
    "scales of rows",
    { "a.weight": weight, "a.weight_scale": { ...float32(1, 2), shape: [2] } },
    /expected one scale in float32, found float32 \[2\]/,
  ],
  [
    "scales of blocks",
    { "a.weight": weight, "a.weight_scale": { dtype: "F8_E8M0", shape: [1], bytes: new Uint8Array(1) } },
    /found float8_e8m0 \[1\]/,
  ],
  [
    "nvfp4",
    { "a.weight": weight, "a.weight_scale": float32(1), "a.weight_scale_2": float32(1) },
    /"a\.weight".*found nvfp4/,
  ],
  ["a marker of whole numbers", { scaled_fp8: text("") }, /"scaled_fp8".*found uint8 \[0\]/],
  [
    "nvfp4, described",
    { "a.weight": weight, "a.comfy_quant": text({ format: "nvfp4" }) },
    /"a\.weight".*found "nvfp4"/,
  ],
  [
    "int8, described",
    { "a.weight": weight, "a.comfy_quant": text({ format: "int8_tensorwise" }) },
    /found "int8_tensorwise"/,
  ],
  ["no format", { "a.weight": weight, "a.comfy_quant": text([]) }, /found \[\]/],
  [
    "another format than the weight's",
    { "a.weight": weight, "a.comfy_quant": text({ format: "float8_e5m2" }) },
    /found float8_e4m3fn where a\.comfy_quant says float8_e5m2/,
  ],
])("%s: refused by name", async (_, tensors, message) => {
  const found = await femoError("E_WEIGHT", () => separate(tensors));
  expect(found).toMatch(message);
  expect(found).toContain("t5.safetensors: ");
});

test.each<[string, Stored]>([
  ["no JSON", text("{")],
  ["no UTF-8", { dtype: "U8", shape: [1], bytes: Uint8Array.of(0xff) }],
  ["floats", float32(1)],
  ["far too long", text(" ".repeat(70_000))],
])("a description that is %s is refused", async (_, described) => {
  const found = await femoError("E_FILE", () => separate({ "a.weight": weight, "a.comfy_quant": described }));
  expect(found).toMatch(/t5\.safetensors: tensor "a\.comfy_quant"/);
});

describe("what the header says of layers", () => {
  const tensors = { "a.weight": weight, "a.weight_scale": float32(1) };
  const openWith = (json: unknown) =>
    open(tensors, { _quantization_metadata: typeof json === "string" ? json : JSON.stringify(json) });

  test("8-bit floating point is read", async () => {
    const layers = { a: { format: "float8_e4m3fn" }, b: { format: "float8_e5m2", full_precision_matrix_mult: true } };
    expect((await openWith({ format_version: "1.0", layers })).names()).toEqual(["a.weight", "a.weight_scale"]);
    expect((await openWith({ layers: {} })).names()).toHaveLength(2);
  });

  test.each<["E_FILE" | "E_WEIGHT", unknown, RegExp]>([
    ["E_WEIGHT", { layers: { a: { format: "nvfp4" } } }, /tensor "a\.weight": expected a format .*found "nvfp4"/],
    ["E_WEIGHT", { layers: { a: { format: 7 } } }, /found 7/],
    ["E_WEIGHT", { layers: { a: null } }, /found null/],
    ["E_FILE", { layers: [] }, /_quantization_metadata: expected an object "layers".*found \[\]/],
    ["E_FILE", 3, /found 3/],
    ["E_FILE", "{", /not valid JSON at line 1/],
  ])("%s: %j is refused", async (code, json, message) => {
    expect(await femoError(code, () => openWith(json))).toMatch(message);
  });

  test("whatever it says, the result is a checkpoint or a FemoError", () =>
    fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc
            .dictionary(fc.string(), fc.oneof(fc.jsonValue(), fc.record({ format: fc.jsonValue() })))
            .map((layers) => JSON.stringify({ layers })),
        ),
        async (json) => {
          try {
            await openWith(json);
            const { scales } = await separateScales(await open({ ...tensors, "a.comfy_quant": text(json) }));
            expect(scales.size).toBe(1);
          } catch (error) {
            if (!(error instanceof FemoError)) throw error;
            expect(error.message.length).toBeLessThan(1500);
          }
        },
      ),
      { numRuns: 500 },
    ));
});
