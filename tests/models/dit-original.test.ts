import { mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { Backbone } from "../../src/denoising/backbone.js";
import { type DiTConfig, dit, ditConfigFromJson, ditXL2 } from "../../src/models/dit.js";
import { type OriginalDiTOptions, originalDiT } from "../../src/models/dit-original.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { traceCut } from "../../src/tracing/index.js";
import {
  Checkpoint,
  type ComponentOptions,
  openCheckpoint,
  openModelFolder,
  type TensorInfo,
} from "../../src/weights/index.js";
import { safetensorsHeader } from "../../src/weights/safetensors-header.js";
import { engineForTests, evaluate, numbers, relativeError, weightsOf } from "../runtime/helpers.js";
import { femoError, safetensors } from "../weights/helpers.js";
import { torchGoldens } from "../weights/torch-helpers.js";
import { openGolden } from "./tiny.js";

const engine = engineForTests();
const golden = await openGolden("DiT-tiny.golden.safetensors", torchGoldens);
const openOriginal = async (folder: string, file: string, options?: OriginalDiTOptions) =>
  originalDiT(await openCheckpoint(nodeFolder(folder), file), options);
const openTiny = () => openOriginal(torchGoldens, "DiT-tiny.pt", { heads: 2 });

interface Opened {
  readonly config: DiTConfig;
  readonly checkpoint: Checkpoint;
}
async function openDiffusers(options?: ComponentOptions): Promise<Opened> {
  const model = await openModelFolder(nodeFolder(`${torchGoldens}/pipeline`), options);
  const { config, checkpoint } = await model.component("transformer");
  return { config: ditConfigFromJson(config), checkpoint };
}

/** What a model gives for the inputs of the golden file. */
async function run({ config, checkpoint }: Opened): Promise<number[]> {
  const [sample, timestep, label] = [await golden("sample"), await golden("timesteps"), await golden("labels")];
  const { graph } = traceCut(dit(config), { hoisted: "inline" });
  const { output } = await evaluate(engine, graph, { sample, timestep, class_label: label }, weightsOf(checkpoint));
  return numbers(output);
}
const wanted = async (name: string): Promise<number[]> => numbers(await golden(name));

describe("weights inside files that torch.save wrote", () => {
  test("the original release's names: equals the original model in PyTorch", async () => {
    expect(relativeError(await run(await openTiny()), await wanted("original"))).toBeLessThan(1e-5);
  });

  test("with diffusers' frequencies and epsilon, it equals diffusers: nothing else differs", async () => {
    const { config, checkpoint } = await openTiny();
    const found = await run({ config: { ...config, downscaleFreqShift: 1, normEps: 1e-5 }, checkpoint });
    expect(relativeError(found, await wanted("diffusers"))).toBeLessThan(1e-5);
    expect(relativeError(found, await wanted("original"))).toBeGreaterThan(0.1);
  });

  test("diffusers' .bin equals diffusers", async () => {
    expect(relativeError(await run(await openDiffusers()), await wanted("diffusers"))).toBeLessThan(1e-5);
  });

  test("diffusers' .bin in float16, in three files, equals diffusers", async () => {
    const found = await run(await openDiffusers({ variant: "fp16" }));
    expect(relativeError(found, await wanted("float16"))).toBeLessThan(1e-5);
    expect(relativeError(found, await wanted("diffusers"))).toBeGreaterThan(1e-5);
  });

  const folder = realpathSync(mkdtempSync(join(tmpdir(), "femo-torch-")));
  afterAll(() => rmSync(folder, { recursive: true }));

  test("a .bin gives, to the bit, what a safetensors file of the same tensors gives", async () => {
    const { config, checkpoint } = await openDiffusers();
    const header: Record<string, unknown> = {};
    const parts: Uint8Array[] = [];
    let end = 0;
    for (const { name, shape, byteLength } of checkpoint.tensors() as TensorInfo[]) {
      header[name] = { dtype: "F32", shape, data_offsets: [end, end + byteLength] };
      parts.push(await checkpoint.readBytes(name));
      end += byteLength;
    }
    writeFileSync(join(folder, "model.safetensors"), safetensors(header, Buffer.concat(parts)));
    const copy = await openCheckpoint(nodeFolder(folder), "model.safetensors");
    expect(await run({ config, checkpoint })).toEqual(await run({ config, checkpoint: copy }));
  });

  test("the original release's names, changed by what training wraps around a model", async () => {
    const file = await openCheckpoint(nodeFolder(torchGoldens), "DiT-tiny.pt");
    const plain = await openTiny();
    const data = await Promise.all(file.names().map((name) => file.readBytes(name)));
    const openAs = (prefix: string) => {
      const tensors = file.tensors().map((tensor) => ({ ...tensor, name: prefix + tensor.name }));
      writeFileSync(join(folder, "wrapped.safetensors"), Buffer.concat([safetensorsHeader(tensors), ...data]));
      return openOriginal(folder, "wrapped.safetensors", { heads: 2 });
    };
    for (const prefix of ["module.", "_orig_mod.", "module._orig_mod."]) {
      const { config, checkpoint } = await openAs(prefix);
      expect(config).toEqual(plain.config);
      expect(checkpoint.names().sort()).toEqual(plain.checkpoint.names().sort());
    }
    expect(await run(await openAs("module."))).toEqual(await run(plain));
    expect(await femoError("E_WEIGHT", () => openAs("model.dit."))).toMatch(
      /It has "model\.dit\.x_embedder\.proj\.weight": it was saved as a part of something larger/,
    );
  });

  test("a runner takes both", async () => {
    for (const { config, checkpoint } of [await openTiny(), await openDiffusers()]) {
      expect(() => new Backbone(dit(config), checkpoint, new Sessions({} as Engine, 0))).not.toThrow();
    }
  });
});

describe("the tensors of the original release", () => {
  test("are parts of the file, not copies", async () => {
    const original = await openCheckpoint(nodeFolder(torchGoldens), "DiT-tiny.pt");
    const { checkpoint } = originalDiT(original, { heads: 2 });
    const qkv = original.get("blocks.1.attn.qkv.weight") as TensorInfo;
    const at = (name: string): number =>
      (checkpoint.get(`transformer_blocks.1.attn1.${name}.weight`) as TensorInfo).offset;
    expect([at("to_q"), at("to_k"), at("to_v")]).toEqual([0, 1024, 2048].map((bytes) => qkv.offset + bytes));
    expect(checkpoint.get("transformer_blocks.1.attn1.to_v.bias")).toMatchObject({ shape: [16], byteLength: 64 });
    const embedder = "norm1.emb.class_embedder.embedding_table.weight";
    const shared = [0, 1].map((i) => (checkpoint.get(`transformer_blocks.${i}.${embedder}`) as TensorInfo).offset);
    expect(shared[0]).toBe(shared[1]);
    expect(checkpoint.get("pos_embed")).toBeUndefined();
  });

  const tensor = (name: string, shape: number[]): TensorInfo => {
    const byteLength = 4 * shape.reduce((a, b) => a * b, 1);
    return { name, shape, dtype: "float32", file: "/w/dit.pt", offset: 0, byteLength };
  };
  const linear = (name: string, rows: number, columns: number): TensorInfo[] => [
    tensor(`${name}.weight`, [rows, columns]),
    tensor(`${name}.bias`, [rows]),
  ];
  /** The release's model as its training script builds it. */
  function release({ width = 1152, depth = 28, patch = 2, side = 16, out = 8, classes = 1000 } = {}): TensorInfo[] {
    return [
      tensor("pos_embed", [1, side * side, width]),
      tensor("x_embedder.proj.weight", [width, 4, patch, patch]),
      tensor("x_embedder.proj.bias", [width]),
      ...linear("t_embedder.mlp.0", width, 256),
      ...linear("t_embedder.mlp.2", width, width),
      tensor("y_embedder.embedding_table.weight", [classes + 1, width]),
      ...Array.from({ length: depth }, (_, i) => [
        ...linear(`blocks.${i}.attn.qkv`, 3 * width, width),
        ...linear(`blocks.${i}.attn.proj`, width, width),
        ...linear(`blocks.${i}.mlp.fc1`, 4 * width, width),
        ...linear(`blocks.${i}.mlp.fc2`, width, 4 * width),
        ...linear(`blocks.${i}.adaLN_modulation.1`, 6 * width, width),
      ]).flat(),
      ...linear("final_layer.linear", patch * patch * out, width),
      ...linear("final_layer.adaLN_modulation.1", 2 * width, width),
    ];
  }
  const open = (tensors: TensorInfo[], heads?: number) =>
    originalDiT(Checkpoint.fromTensors("dit.pt", tensors), heads === undefined ? {} : { heads });
  const original = { normEps: 1e-6, downscaleFreqShift: 0 };

  test("DiT-XL/2 for 256 and 512 pixels, and the smaller ones: configs from shapes", () => {
    expect(open(release()).config).toEqual({ ...ditXL2, ...original });
    expect(open(release({ side: 32 })).config).toEqual({ ...ditXL2, ...original, sampleSize: 64 });
    expect(open(release({ patch: 4, side: 8, out: 4, classes: 10 })).config).toEqual({
      ...{ ...ditXL2, ...original },
      ...{ patchSize: 4, outChannels: 4, numEmbedsAdaNorm: 10 },
    });
    for (const [width, depth, heads] of [
      [384, 12, 6],
      [768, 12, 12],
      [1024, 24, 16],
    ] as const) {
      const { config } = open(release({ width, depth }));
      expect(config).toMatchObject({ numAttentionHeads: heads, attentionHeadDim: 64, numLayers: depth });
    }
    expect(open(release({ depth: 1 }), 8).config).toMatchObject({ numAttentionHeads: 8, attentionHeadDim: 144 });
  });

  test("exactly those of diffusers' model", () => {
    const { config, checkpoint } = open(release({ depth: 3 }));
    const needed = traceCut(dit(config), { hoisted: "inline" }).graph.reachable().weights;
    checkpoint.verify(needed.map(({ name, shape }) => ({ name, shape: shape as number[] })));
  });

  test("a width that no published model has needs its heads", async () => {
    expect(await femoError("E_CONFIG", () => open(release({ width: 512, depth: 1 })))).toMatch(/width 512.*Pass heads/);
    expect(await femoError("E_CONFIG", () => open(release({ depth: 1 }), 7))).toContain(
      "divides the width 1152, found 7",
    );
  });

  test.each(["x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight", "final_layer.linear.weight"])(
    "without %s it is another model",
    async (name) => {
      const others = release({ depth: 1 }).filter((tensor) => tensor.name !== name);
      expect(await femoError("E_WEIGHT", () => open(others))).toContain(
        `dit.pt: expected a DiT or a FLUX.1 under the names of its release, for a DiT a tensor "${name}"`,
      );
    },
  );

  test("missing, surplus and misshapen ones are named", async () => {
    const change = (name: string, shape: number[]) =>
      release({ depth: 2 }).map((item) => (item.name === name ? tensor(name, shape) : item));
    const without = release({ depth: 2 }).filter(({ name }) => name !== "blocks.0.mlp.fc1.bias");
    expect(await femoError("E_WEIGHT", () => open(without))).toContain('"blocks.0.mlp.fc1.bias" [4608]');
    const surplus = [...release({ depth: 2 }), tensor("blocks.1.attn.q_norm.weight", [72])];
    expect(await femoError("E_WEIGHT", () => open(surplus))).toContain('"blocks.1.attn.q_norm.weight" [72]');
    expect(await femoError("E_WEIGHT", () => open(change("pos_embed", [1, 256, 1024])))).toContain(
      "found [1, 256, 1024]",
    );
    expect(await femoError("E_WEIGHT", () => open(change("pos_embed", [2, 256, 1152])))).toContain(
      "found [2, 256, 1152]",
    );
    expect(await femoError("E_CONFIG", () => open(change("pos_embed", [1, 250, 1152])))).toContain("sample_size");
    expect(await femoError("E_CONFIG", () => open(change("final_layer.linear.weight", [33, 1152])))).toContain(
      "out_channels",
    );
    expect(
      await femoError("E_CONFIG", () => open([...release({ depth: 1 }), tensor("blocks.9999999.x", [1])])),
    ).toContain("num_layers");
  });
});
