import { describe, expect, test } from "vitest";
import { relativePositionBucket, t5ConfigFromJson, t5Encoder, withT5Names } from "../../src/models/t5.js";
import { T5EncoderModel } from "../../src/pipelines/text-encoders.js";
import type { Engine } from "../../src/runtime/engine.js";
import type { NetworkOptions } from "../../src/runtime/network.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { Checkpoint, type TensorInfo } from "../../src/weights/index.js";
import { engineForTests, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { openEncoded, openTextEncoder, readJson } from "./text-encoders.js";

const engine = engineForTests();
const TOLERANCE = 1e-5; // of the greatest value

async function open(name: string, options?: NetworkOptions): Promise<T5EncoderModel> {
  const { json, checkpoint } = await openTextEncoder(name);
  return new T5EncoderModel(t5ConfigFromJson(json), checkpoint, new Sessions(engine, 2 ** 30), options);
}

describe("equals transformers", () => {
  test.each([
    ["t5", 150], // gated GELU, float32; as far as the last buckets
    ["t5", 7],
    ["t5", 1],
    ["t5-bf16", 9], // the embedding by the encoder's name only
    ["t5-relu", 40], // not gated, other buckets, a whole T5 whose encoder has an embedding of its own
  ])("%s, %i tokens", async (name, tokens) => {
    const golden = await openEncoded(name);
    const wanted = await golden.values(`last_hidden_state.${tokens}`);
    const ids = await golden.ids(`ids.${tokens}`);
    for (const options of [{}, { once: true }]) {
      const found = await (await open(name, options)).encode(ids);
      expect(found.dims).toEqual(wanted.dims);
      expect(relativeError(numbers(found), wanted.data)).toBeLessThan(TOLERANCE);
    }
  });
});

describe("buckets of distances", () => {
  const golden = readJson("buckets.json") as Record<string, [from: number, bucket: number][]>;
  test.each(Object.entries(golden))("%s: as transformers has them, and none changes farther away", (key, changes) => {
    const [buckets, far] = key.split(",").map(Number) as [number, number];
    const distances = Array.from({ length: 2 * far + 601 }, (_, i) => i - far - 300);
    const found = distances.map((distance) => relativePositionBucket(distance, buckets, far));
    const starts = distances.flatMap((distance, i) => (found[i] === found[i - 1] ? [] : [[distance, found[i]]]));
    expect(starts).toEqual(changes);
    const outside = [-far - 300, -far, far, far + 300].map((distance) =>
      relativePositionBucket(distance, buckets, far),
    );
    expect([outside[0], outside[3]]).toEqual([outside[1], outside[2]]);
  });

  test("a key behind the query is in the second half: row 0 and column 0 of T5's table", () => {
    const row = [0, 1, 2, 3].map((key) => relativePositionBucket(key - 0, 32, 128));
    const column = [0, 1, 2, 3].map((query) => relativePositionBucket(0 - query, 32, 128));
    expect([row, column]).toEqual([
      [0, 17, 18, 19],
      [0, 1, 2, 3],
    ]);
  });
});

test("T5 v1.1 XXL has as many parameters, in as many tensors", () => {
  const xxl = { d_model: 4096, d_ff: 10_240, num_layers: 24, num_heads: 64, feed_forward_proj: "gated-gelu" };
  const { weights } = t5Encoder(t5ConfigFromJson(xxl)).reachable();
  expect(weights).toHaveLength(219);
  expect(weights.reduce((sum, { shape }) => sum + shape.reduce<number>((a, b) => a * Number(b), 1), 0)).toBe(
    4_762_310_656,
  );
});

describe("a checkpoint", () => {
  const small = { d_model: 4, d_kv: 2, d_ff: 6, num_layers: 2, num_heads: 2, vocab_size: 9 };
  const config = t5ConfigFromJson(small);
  const tensor = (name: string, shape: readonly number[], offset = 0): TensorInfo => {
    const byteLength = 4 * shape.reduce((a, b) => a * b, 1);
    return { name, shape, dtype: "float32", file: "/w/f.safetensors", offset, byteLength };
  };
  const all = t5Encoder(config)
    .reachable()
    .weights.map(({ name, shape }) => tensor(name, shape as number[]));
  const openAll = (tensors: TensorInfo[]) =>
    new T5EncoderModel(config, Checkpoint.fromTensors("f", tensors), new Sessions({} as Engine, 0));

  test("a decoder's tensors may be there, others are named", async () => {
    const decoder = ["decoder.block.0.layer.0.SelfAttention.q.weight", "lm_head.weight"];
    expect(() => openAll([...all, ...decoder.map((name) => tensor(name, [1]))])).not.toThrow();
    const surplus = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight";
    expect(await femoError("E_WEIGHT", () => openAll([...all, tensor(surplus, [32, 2])]))).toContain(surplus);
    const without = all.filter(({ name }) => name !== "encoder.final_layer_norm.weight");
    expect(await femoError("E_WEIGHT", () => openAll(without))).toContain('"encoder.final_layer_norm.weight" [4]');
  });

  test("the encoder's own embedding goes before the shared one", () => {
    const own = tensor("encoder.embed_tokens.weight", [9, 4], 1000);
    const names = withT5Names(Checkpoint.fromTensors("f", [...all, own]));
    expect(names.get("shared.weight")).toMatchObject({ offset: 1000 });
    expect(names.names().toSorted()).toEqual(all.map(({ name }) => name).toSorted());
  });
});

test.each<[string, number[][]]>([
  [
    "rows of 2, 3",
    [
      [1, 2],
      [1, 2, 3],
    ],
  ],
  ["none", []],
  ["found 50", [[1, 50]]],
  ["found -1", [[-1, 1]]],
])("tokens are checked: %s", async (found, rows) => {
  expect(await femoError("E_OPTION", async () => (await open("t5")).encode(rows))).toContain(found);
});

describe("configs", () => {
  test("what is left out has transformers' defaults", () => {
    expect(t5ConfigFromJson({})).toEqual({
      vocabSize: 32_128,
      dModel: 512,
      dKv: 64,
      dFf: 2048,
      numLayers: 6,
      numHeads: 8,
      relativeAttentionNumBuckets: 32,
      relativeAttentionMaxDistance: 128,
      layerNormEpsilon: 1e-6,
      denseActFn: "relu",
      isGatedAct: false,
    });
  });

  test.each([
    [{ feed_forward_proj: "gated-gelu" }, "gelu_new", true],
    [{ feed_forward_proj: "gated-silu" }, "silu", true],
    [{ feed_forward_proj: "gelu" }, "gelu", false],
    [{ dense_act_fn: "gelu_pytorch_tanh", is_gated_act: true }, "gelu_pytorch_tanh", true],
  ])("%j", (json, denseActFn, isGatedAct) => {
    expect(t5ConfigFromJson(json)).toMatchObject({ denseActFn, isGatedAct });
  });

  test.each([
    ["d_model", { d_model: 0 }],
    ["num_layers", { num_layers: 1e9 }],
    ["relative_attention_num_buckets", { relative_attention_num_buckets: 3 }],
    ["relative_attention_max_distance", { relative_attention_max_distance: 8 }],
    ["feed_forward_proj: gated-tanh", { feed_forward_proj: "gated-tanh" }],
    ["feed_forward_proj", { feed_forward_proj: 3 }],
    ["dense_act_fn: toString", { dense_act_fn: "toString" }],
    ["layer_norm_epsilon", { layer_norm_epsilon: -1 }],
    ["(root)", []],
  ])("%s: %j is refused", async (field, json) => {
    const message = await femoError("E_CONFIG", () => t5ConfigFromJson(json, "here/config.json"));
    expect(message).toContain("here/config.json");
    expect(message).toContain(field);
  });
});
