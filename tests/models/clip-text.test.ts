import { describe, expect, test } from "vitest";
import {
  type ClipTextOutput,
  clipPooledPosition,
  clipTextConfigFromJson,
  clipTextEncoder,
} from "../../src/models/clip-text.js";
import { ClipTextModel } from "../../src/pipelines/text-encoders.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { Checkpoint, type TensorInfo } from "../../src/weights/index.js";
import { engineForTests, numbers, relativeError } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { openEncoded, openTextEncoder } from "./text-encoders.js";

const engine = engineForTests();
const TOLERANCE = 1e-5; // of the greatest value

async function open<Output extends ClipTextOutput>(name: string, outputs: readonly Output[], file?: string) {
  const { json, checkpoint } = await openTextEncoder(name, file);
  const config = clipTextConfigFromJson(json);
  return { config, model: new ClipTextModel(config, checkpoint, new Sessions(engine, 2 ** 30), outputs) };
}

describe("equals transformers", () => {
  // Names with and without "text_model.", float32 and float16, quick_gelu and gelu, both rules for what is pooled.
  test.each(["clip-eos-2", "clip-added-token", "clip-projection"])("%s, every output", async (name) => {
    const golden = await openEncoded(name);
    const outputs = golden.names.filter((tensor) => tensor !== "ids") as ClipTextOutput[];
    expect(outputs).toContain("hidden_states[3]");
    const { model } = await open(name, outputs);
    const found = await model.encode(await golden.ids("ids"));
    for (const output of outputs) {
      const wanted = await golden.values(output);
      expect(found[output]?.dims, output).toEqual(wanted.dims);
      expect(relativeError(numbers(found[output]), wanted.data), output).toBeLessThan(TOLERANCE);
    }
  });

  test("a prompt alone, and cut behind its end, is pooled to the same", async () => {
    const golden = await openEncoded("clip-eos-2");
    const { model, config } = await open("clip-eos-2", ["pooled"]);
    const { dims, data } = await golden.values("pooled");
    for (const [i, row] of (await golden.ids("ids")).slice(0, 2).entries()) {
      const { pooled } = await model.encode([row.slice(0, clipPooledPosition(row, config) + 1)]);
      const width = dims[1] as number;
      expect(relativeError(numbers(pooled), data.slice(i * width, (i + 1) * width))).toBeLessThan(TOLERANCE);
    }
  });

  test("the text encoder of a whole CLIP is that of its own file", async () => {
    const outputs = ["projected", "hidden_states[-2]"] as const;
    const golden = await openEncoded("clip-projection");
    const { model } = await open("clip-projection", outputs, "whole");
    const found = await model.encode(await golden.ids("ids"));
    for (const [output, of] of [
      ["projected", "projected"],
      ["hidden_states[-2]", "hidden_states[2]"],
    ] as const) {
      expect(relativeError(numbers(found[output]), (await golden.values(of)).data)).toBeLessThan(TOLERANCE);
    }
  });

  test("hidden states behind the last norm, for whoever skips layers", async () => {
    const golden = await openEncoded("clip-eos-2");
    const { json, checkpoint } = await openTextEncoder("clip-eos-2");
    const { layerNormEps, hiddenSize: width } = clipTextConfigFromJson(json);
    const [scale, bias] = await Promise.all(
      ["weight", "bias"].map((part) => checkpoint.readTensor(`text_model.final_layer_norm.${part}`)),
    );
    const { model } = await open("clip-eos-2", ["normed_hidden_states[-2]", "normed_hidden_states[-1]"]);
    const found = await model.encode(await golden.ids("ids"));
    const { data } = await golden.values("hidden_states[2]");
    const wanted = Array.from(data, (x, i) => {
      const row = Array.from(data.slice(i - (i % width), i - (i % width) + width));
      const mean = row.reduce((a, b) => a + b, 0) / width;
      const variance = row.reduce((sum, y) => sum + (y - mean) ** 2, 0) / width;
      const [s, b] = [scale?.[i % width] as number, bias?.[i % width] as number];
      return ((x - mean) / Math.sqrt(variance + layerNormEps)) * s + b;
    });
    expect(relativeError(numbers(found["normed_hidden_states[-2]"]), wanted)).toBeLessThan(TOLERANCE);
    const last = await golden.values("last_hidden_state");
    expect(relativeError(numbers(found["normed_hidden_states[-1]"]), last.data)).toBeLessThan(TOLERANCE);
  });

  test("it runs again after it was released", async () => {
    const golden = await openEncoded("clip-eos-2");
    const { model } = await open("clip-eos-2", ["pooled"]);
    const ids = await golden.ids("ids");
    const before = await model.encode(ids);
    await model.network.release();
    expect(model.network.isLoaded).toBe(false);
    expect(await model.encode(ids)).toEqual(before);
  });
});

describe("what no output needs is not in the graph", () => {
  const config = clipTextConfigFromJson({ num_hidden_layers: 4, hidden_size: 8, num_attention_heads: 2 });
  const names = (...outputs: ClipTextOutput[]) => {
    const { weights, inputs } = clipTextEncoder(config, outputs).reachable();
    return [...weights, ...inputs].map(({ name }) => name);
  };

  test("the last layer, the last norm and where to pool, of the last hidden state but one", () => {
    expect(names("hidden_states[-2]").filter((name) => /layers\.3|final|pooled/.test(name))).toEqual([]);
    expect(names("hidden_states[-2]").filter((name) => name.includes("layers.2"))).toHaveLength(16);
    expect(names("hidden_states[3]")).toEqual(names("hidden_states[-2]"));
  });

  test("the projection, unless it is asked for", () => {
    expect(names("pooled", "last_hidden_state")).not.toContain("text_projection.weight");
    expect(names("projected")).toContain("text_projection.weight");
  });

  test.each(["hidden_states[5]", "hidden_states[-6]", "hidden_states[1.5]", "hidden_states[]", "pool"])(
    "%s is refused",
    async (output) => {
      expect(await femoError("E_GRAPH", () => clipTextEncoder(config, [output as ClipTextOutput]))).toContain("0 to 4");
    },
  );
});

describe("the position that is pooled", () => {
  const at = (ids: number[], eos: number) => clipPooledPosition(ids, clipTextConfigFromJson({ eos_token_id: eos }));
  test("the first end; the first of all if there is none", () => {
    expect(at([49406, 320, 49407, 49407, 49408], 49407)).toBe(2);
    expect(at([49406, 320, 2], 49407)).toBe(0);
  });
  test("with an id of 2, the first of the greatest ids", () => {
    expect(at([49406, 320, 49407, 49407, 2], 2)).toBe(2);
    expect(at([5, 2, 4], 2)).toBe(0);
  });
});

describe("full size, without weights", () => {
  const L = { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12, eos_token_id: 2 };
  const G = { hidden_size: 1280, intermediate_size: 5120, num_attention_heads: 20, num_hidden_layers: 32 };
  test.each([
    ["CLIP-L of FLUX.1 and Stable Diffusion", L, "pooled", 123_060_480, 196],
    ["bigG of SDXL", { ...G, projection_dim: 1280, hidden_act: "gelu" }, "projected", 694_659_840, 517],
  ] as const)("%s has as many parameters", (_, json, output, parameters, tensors) => {
    const { weights } = clipTextEncoder(clipTextConfigFromJson(json), [output]).reachable();
    expect(weights).toHaveLength(tensors);
    expect(weights.reduce((sum, { shape }) => sum + shape.reduce<number>((a, b) => a * Number(b), 1), 0)).toBe(
      parameters,
    );
  });
});

describe("a checkpoint that is not the encoder's", () => {
  const small = { num_hidden_layers: 2, hidden_size: 4, intermediate_size: 6, num_attention_heads: 2, vocab_size: 9 };
  const config = clipTextConfigFromJson({ ...small, projection_dim: 3 });
  const tensor = (name: string, shape: readonly number[]): TensorInfo => {
    const byteLength = 4 * shape.reduce((a, b) => a * b, 1);
    return { name, shape, dtype: "float32", file: "/w/f.safetensors", offset: 0, byteLength };
  };
  const all = clipTextEncoder(config, ["projected"])
    .reachable()
    .weights.map(({ name, shape }) => tensor(name, shape as number[]));
  const openPooled = (tensors: TensorInfo[]) =>
    new ClipTextModel(config, Checkpoint.fromTensors("f", tensors), new Sessions({} as Engine, 0), ["pooled"]);
  const others = [
    "embeddings.position_ids",
    "vision_model.encoder.layers.0.x",
    "visual_projection.weight",
    "logit_scale",
  ];

  test("the rest of a whole CLIP, and what other outputs need, may be there", () => {
    expect(() => openPooled([...all, ...others.map((name) => tensor(name, [1]))])).not.toThrow();
  });

  test.each(["encoder.layers.2.mlp.fc1.bias", "embeddings.extra"])("%s is surplus", async (name) => {
    const message = await femoError("E_WEIGHT", () => openPooled([...all, tensor(name, [5])]));
    expect(message).toContain(`"${name}" [5]`);
  });

  test("a tensor by both names is refused", async () => {
    const twice = tensor("text_model.final_layer_norm.bias", [4]);
    expect(await femoError("E_WEIGHT", () => openPooled([...all, twice]))).toContain("final_layer_norm.bias");
  });

  test("missing and misshapen ones are named", async () => {
    const name = "encoder.layers.1.self_attn.q_proj.weight";
    const without = all.filter((known) => known.name !== name);
    expect(await femoError("E_WEIGHT", () => openPooled(without))).toContain(`"${name}" [4, 4]`);
    const message = await femoError("E_WEIGHT", () => openPooled([...without, tensor(name, [4, 5])]));
    expect(message).toContain(`"${name}": expected [4, 4], found [4, 5]`);
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
  ["rows of 0", [[]]],
  ["rows of 12", [Array(12).fill(1)]],
  ["found 60", [[1, 60]]],
  ["found -1", [[-1, 1]]],
  ["found 1.5", [[1, 1.5]]],
])("tokens are checked: %s", async (found, rows) => {
  const { model } = await open("clip-eos-2", ["pooled"]);
  expect(await femoError("E_OPTION", () => model.encode(rows))).toContain(found);
});

describe("configs", () => {
  test("what is left out has transformers' defaults", () => {
    expect(clipTextConfigFromJson({})).toEqual({
      vocabSize: 49_408,
      hiddenSize: 512,
      intermediateSize: 2048,
      projectionDim: 512,
      numHiddenLayers: 12,
      numAttentionHeads: 8,
      maxPositionEmbeddings: 77,
      hiddenAct: "quick_gelu",
      layerNormEps: 1e-5,
      eosTokenId: 49_407,
    });
  });

  test.each([
    ["hidden_size", { hidden_size: 100 }],
    ["hidden_size", { hidden_size: 0 }],
    ["hidden_act", { hidden_act: "tanh" }],
    ["hidden_act", { hidden_act: "constructor" }],
    ["num_hidden_layers", { num_hidden_layers: 1e9 }],
    ["vocab_size", { vocab_size: 2.5 }],
    ["layer_norm_eps", { layer_norm_eps: 0 }],
    ["eos_token_id", { eos_token_id: [1, 2] }],
    ["(root)", null],
  ])("%s: %j is refused", async (field, json) => {
    const message = await femoError("E_CONFIG", () => clipTextConfigFromJson(json, "here/config.json"));
    expect(message).toContain("here/config.json");
    expect(message).toContain(field);
  });
});
