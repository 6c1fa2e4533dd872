import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { psnr } from "../../src/metrics/index.js";
import { DiffusionPipeline, type PretrainedOptions } from "../../src/pipelines/index.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { type Checkpoint, openCheckpoint, toFloat32 } from "../../src/weights/index.js";
import { femoError, safetensors } from "../weights/helpers.js";

const model = fileURLToPath(new URL("../goldens/flux-pipeline/dev", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "femo-flux-files-"));
beforeAll(() => {
  vi.stubEnv("FEMO_CACHE", join(folder, "cache"));
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

const request = {
  ...{ prompt: ["a red fox", "two lemons"], negativePrompt: "snow", trueCfgScale: 2, seed: 3 },
  ...{ numInferenceSteps: 3, height: 48, width: 64, maxSequenceLength: 16 },
};
const opened: DiffusionPipeline[] = [];
afterAll(() => Promise.all(opened.map((pipeline) => pipeline.close())));
async function draw(path: string, options: PretrainedOptions = {}) {
  const pipeline = await DiffusionPipeline.fromPretrained(path, { threads: 1, ...options });
  opened.push(pipeline);
  return pipeline.generate(request);
}
const imagesOf = async (path: string, options?: PretrainedOptions) =>
  (await draw(path, options)).images.map(({ data }) => data);

interface Stored {
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Tensors in float16 as a file. */
function write(file: string, tensors: Readonly<Record<string, Stored>>): string {
  const header: Record<string, unknown> = {};
  let at = 0;
  for (const [name, { shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype: "F16", shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
  }
  const path = join(folder, file);
  writeFileSync(path, safetensors(header, Buffer.concat(Object.values(tensors).map(({ bytes }) => bytes))));
  return path;
}

async function stored(checkpoint: Checkpoint): Promise<Record<string, Stored>> {
  const entries = checkpoint.tensors().map(async ({ name, shape }) => {
    return [name, { shape, bytes: await checkpoint.readBytes(name) }] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

/** Tensors as a GGUF file, in Q8_0 where their rows split into blocks of 32, else in float16. */
function writeGguf(file: string, tensors: Readonly<Record<string, Stored>>): string {
  const u64 = (value: number): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return bytes;
  };
  const u32 = (value: number): Buffer => u64(value).subarray(0, 4);
  const text = (value: string): Buffer => Buffer.concat([u64(value.length), Buffer.from(value)]);
  const entries = Object.entries(tensors).map(([name, { shape, bytes }]) => {
    const blocks = shape.length === 2 && (shape[1] as number) % 32 === 0;
    return { name, shape, type: blocks ? 8 : 1, data: blocks ? q8(toFloat32(bytes, "float16", name)) : bytes };
  });
  const padding = (length: number): Buffer => Buffer.alloc((32 - (length % 32)) % 32);
  const header = [Buffer.from("GGUF"), u32(3), u64(entries.length), u64(0)];
  let at = 0;
  for (const { name, shape, type, data } of entries) {
    header.push(text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(type), u64(at));
    at += data.length + padding(data.length).length;
  }
  const start = Buffer.concat(header);
  const path = join(folder, file);
  const data = entries.flatMap(({ data }) => [data, padding(data.length)]);
  writeFileSync(path, Buffer.concat([start, padding(start.length), ...data]));
  return path;
}

/** Blocks of 32: a scale in float16, here of powers of two, and whole numbers. */
function q8(values: Float32Array): Buffer {
  const blocks = Array.from({ length: values.length / 32 }, (_, i) => {
    const part = values.subarray(32 * i, 32 * (i + 1));
    const exponent = Math.ceil(Math.log2(Math.max(2 ** -13, ...part.map(Math.abs)) / 127));
    const block = Buffer.alloc(34);
    // Below 2^-14 a float16 is subnormal: a multiple of 2^-24.
    block.writeUInt16LE(exponent < -14 ? 2 ** (exponent + 24) : (exponent + 15) << 10);
    for (const [j, x] of part.entries()) block.writeInt8(Math.round(x / 2 ** exponent), 2 + j);
    return block;
  });
  return Buffer.concat(blocks);
}

const component = (name: string, file: string) => openCheckpoint(nodeFolder(model), `${name}/${file}`);

/** One tensor of the rows of several. */
const joined = (parts: readonly Stored[]): Stored => ({
  shape: [parts.reduce((sum, { shape }) => sum + (shape[0] as number), 0), ...(parts[0]?.shape.slice(1) ?? [])],
  bytes: Buffer.concat(parts.map(({ bytes }) => bytes)),
});
const halves = ({ shape, bytes }: Stored): [Stored, Stored] => {
  const half = [(shape[0] as number) / 2, ...shape.slice(1)];
  const middle = bytes.length / 2;
  return [
    { shape: half, bytes: bytes.subarray(0, middle) },
    { shape: half, bytes: bytes.subarray(middle) },
  ];
};

/** The transformer under the names of the release. */
function released(of: Readonly<Record<string, Stored>>, doubles: number, singles: number): Record<string, Stored> {
  const out: Record<string, Stored> = {};
  const put = (original: string, ...names: string[]): void => {
    for (const kind of ["weight", "bias"]) {
      out[`${original}.${kind}`] = joined(names.map((name) => of[`${name}.${kind}`] as Stored));
    }
  };
  const norms = (original: string, name: string): void => {
    out[`${original}.query_norm.scale`] = of[`${name}_q.weight`] as Stored;
    out[`${original}.key_norm.scale`] = of[`${name}_k.weight`] as Stored;
  };
  put("img_in", "x_embedder");
  put("txt_in", "context_embedder");
  for (const [original, name] of [
    ["time_in", "timestep"],
    ["guidance_in", "guidance"],
    ["vector_in", "text"],
  ]) {
    put(`${original}.in_layer`, `time_text_embed.${name}_embedder.linear_1`);
    put(`${original}.out_layer`, `time_text_embed.${name}_embedder.linear_2`);
  }
  for (let i = 0; i < doubles; i++) {
    const [a, b] = [`double_blocks.${i}`, `transformer_blocks.${i}`];
    for (const [stream, suffix, qkv, norm, out0] of [
      ["img", "", ["to_q", "to_k", "to_v"], "norm", "to_out.0"],
      ["txt", "_context", ["add_q_proj", "add_k_proj", "add_v_proj"], "norm_added", "to_add_out"],
    ] as const) {
      put(`${a}.${stream}_mod.lin`, `${b}.norm1${suffix}.linear`);
      put(`${a}.${stream}_attn.qkv`, ...qkv.map((part) => `${b}.attn.${part}`));
      put(`${a}.${stream}_attn.proj`, `${b}.attn.${out0}`);
      put(`${a}.${stream}_mlp.0`, `${b}.ff${suffix}.net.0.proj`);
      put(`${a}.${stream}_mlp.2`, `${b}.ff${suffix}.net.2`);
      norms(`${a}.${stream}_attn.norm`, `${b}.attn.${norm}`);
    }
  }
  for (let i = 0; i < singles; i++) {
    const [a, b] = [`single_blocks.${i}`, `single_transformer_blocks.${i}`];
    put(`${a}.modulation.lin`, `${b}.norm.linear`);
    put(`${a}.linear1`, ...["to_q", "to_k", "to_v"].map((part) => `${b}.attn.${part}`), `${b}.proj_mlp`);
    put(`${a}.linear2`, `${b}.proj_out`);
    norms(`${a}.norm`, `${b}.attn.norm`);
  }
  put("final_layer.linear", "proj_out");
  for (const kind of ["weight", "bias"]) {
    out[`final_layer.adaLN_modulation.1.${kind}`] = joined(halves(of[`norm_out.linear.${kind}`] as Stored).reverse());
  }
  return out;
}

let transformer: Record<string, Stored>;
let files: { transformer: string; textEncoder2: string };
let wanted: Uint8Array[];
beforeAll(async () => {
  transformer = await stored(await component("transformer", "diffusion_pytorch_model.safetensors"));
  const t5 = await stored(await component("text_encoder_2", "model.safetensors"));
  const embedding = (t5["shared.weight"] ?? t5["encoder.embed_tokens.weight"]) as Stored;
  files = {
    transformer: write("flux1-tiny.safetensors", released(transformer, 1, 2)),
    textEncoder2: write("t5xxl_fp16.safetensors", { ...t5, "encoder.embed_tokens.weight": embedding }),
  };
  wanted = await imagesOf(model);
});

describe("files of the release draw what the folder of the same weights draws", () => {
  // What shapes do not tell of parts this small, heads of CLIP and groups of the autoencoder, folders do.
  test("files of the transformer and of T5, and the other parts of a pipeline", async () => {
    const { transformer: path, textEncoder2 } = files;
    const parts = { vae: model, textEncoder: model, textEncoder2, tokenizer: model };
    expect(await imagesOf(path, parts)).toEqual(wanted);
  });

  test("parts as folders of their own", async () => {
    const part = (name: string): string => join(model, name);
    const parts = {
      ...{ vae: part("vae"), textEncoder: part("text_encoder"), textEncoder2: part("text_encoder_2") },
      ...{ tokenizer: part("tokenizer"), tokenizer2: part("tokenizer_2") },
    };
    expect(await imagesOf(files.transformer, parts)).toEqual(wanted);
  });

  test("one file with the transformer and T5", async () => {
    const t5 = await stored(await component("text_encoder_2", "model.safetensors"));
    const path = write("all-in-one.safetensors", {
      ...prefix("model.diffusion_model.", released(transformer, 1, 2)),
      ...prefix("text_encoders.t5xxl.transformer.", t5),
    });
    expect(await imagesOf(path, { vae: model, textEncoder: model, tokenizer: model })).toEqual(wanted);
  });
});

test("GGUF files in Q8_0 draw it within what 8 bits are off", async () => {
  const t5 = await stored(await component("text_encoder_2", "model.safetensors"));
  const path = writeGguf("flux1-tiny-Q8_0.gguf", released(transformer, 1, 2));
  const named = Object.entries(t5).flatMap(([name, tensor]) => (t5Name(name) ? [[t5Name(name), tensor]] : []));
  const textEncoder2 = writeGguf("t5-tiny-Q8_0.gguf", Object.fromEntries(named));
  const { images } = await draw(path, { vae: model, textEncoder: model, textEncoder2, tokenizer: model });
  const off = images.map(({ data, width, height }, i) => {
    return psnr({ data, width, height }, { data: wanted[i] as Uint8Array, width, height });
  });
  expect(Math.min(...off)).toBeGreaterThan(30);
  expect(Math.max(...off)).toBeLessThan(60); // it is not the same file
});

/** llama.cpp's name of a tensor of T5's encoder. */
function t5Name(name: string): string | undefined {
  const [, block, part] = /^encoder\.block\.(\d+)\.layer\.\d\.(.+)\.weight$/.exec(name) ?? [];
  const parts: Record<string, string> = {
    ...{ "SelfAttention.q": "attn_q", "SelfAttention.k": "attn_k", "SelfAttention.v": "attn_v" },
    ...{ "SelfAttention.o": "attn_o", "SelfAttention.relative_attention_bias": "attn_rel_b" },
    ...{ "DenseReluDense.wi_0": "ffn_gate", "DenseReluDense.wi_1": "ffn_up", "DenseReluDense.wo": "ffn_down" },
    layer_norm: name.includes(".layer.0.") ? "attn_norm" : "ffn_norm",
  };
  if (part !== undefined) return `enc.blk.${block}.${parts[part]}.weight`;
  if (name === "encoder.final_layer_norm.weight") return "enc.output_norm.weight";
  return name === "shared.weight" ? "token_embd.weight" : undefined;
}

const prefix = (before: string, tensors: Readonly<Record<string, Stored>>): Record<string, Stored> =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [`${before}${name}`, tensor]));

test.each(["vae", "textEncoder", "textEncoder2", "tokenizer"] as const)(
  "a file without %s says what is missing and where it may be",
  async (option) => {
    const parts = { vae: model, textEncoder: model, textEncoder2: model, tokenizer: model };
    const { [option]: _, ...others } = parts;
    const message = await femoError("E_OPTION", () => draw(files.transformer, others));
    expect(message).toContain(`${option}: expected ${option === "tokenizer" ? "where the tokenizer is" : "the "}`);
    expect(message).toContain("black-forest-labs/FLUX.1-schnell");
  },
);

test("a tokenizer of the other kind is refused", async () => {
  const parts = { vae: model, textEncoder: model, textEncoder2: model };
  const clip = join(model, "tokenizer");
  const message = await femoError("E_CONFIG", () => draw(files.transformer, { ...parts, tokenizer: clip }));
  expect(message).toContain("tokenizer2: expected the tokenizer of the text encoder, T5's");
});

test("options of other models are refused", async () => {
  expect(await femoError("E_OPTION", () => draw(files.transformer, { heads: 3 }))).toContain(
    "heads: not of the model in",
  );
  expect(await femoError("E_OPTION", () => draw(model, { textEncoder: model }))).toContain("textEncoder: only with");
});

describe("LoRA", () => {
  const name = "single_transformer_blocks.0.proj_out";
  /** Of rank 1: down is all ones in float16, up all 1/8. */
  const lora = (module = name): Record<string, Stored> => {
    const [rows, columns] = (transformer[`${name}.weight`] as Stored).shape as [number, number];
    const filled = (shape: number[], half: number): Stored => ({
      shape,
      bytes: new Uint8Array(new Uint16Array(shape.reduce((a, b) => a * b)).fill(half).buffer),
    });
    return {
      [`transformer.${module}.lora_A.weight`]: filled([1, columns], 0x3c00),
      [`transformer.${module}.lora_B.weight`]: filled([rows, 1], 0x3000),
    };
  };

  test("none of it changes nothing, and some of it changes the image, also in a file of the release", async () => {
    const path = write("lora.safetensors", lora());
    expect(await imagesOf(model, { lora: [{ path, weight: 0 }] })).toEqual(wanted);
    const changed = await imagesOf(model, { lora: path });
    expect(changed).not.toEqual(wanted);
    expect(
      await imagesOf(model, {
        lora: [
          { path, weight: 0.5 },
          { path, weight: 0.5 },
        ],
      }),
    ).toEqual(changed);
    const parts = { vae: model, textEncoder: model, textEncoder2: model, tokenizer: model };
    expect(await imagesOf(files.transformer, { ...parts, lora: path })).toEqual(changed);
  });

  test("is what the merged weights draw", async () => {
    const path = write("half-lora.safetensors", lora());
    const merged = join(folder, "merged");
    const checkpoint = await component("transformer", "diffusion_pytorch_model.safetensors");
    const base = await checkpoint.readTensor(`${name}.weight`);
    for (const part of [
      "tokenizer",
      "tokenizer_2",
      "text_encoder",
      "text_encoder_2",
      "vae",
      "scheduler",
      "transformer",
    ]) {
      mkdirSync(join(merged, part), { recursive: true });
    }
    copyFileSync(join(model, "model_index.json"), join(merged, "model_index.json"));
    for (const file of [
      ...["tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer/tokenizer_config.json"],
      ...["tokenizer_2/spiece.model", "tokenizer_2/tokenizer_config.json", "scheduler/scheduler_config.json"],
      ...["text_encoder/config.json", "text_encoder/model.safetensors", "text_encoder_2/config.json"],
      ...["text_encoder_2/model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.safetensors"],
      "transformer/config.json",
    ]) {
      copyFileSync(join(model, file), join(merged, file));
    }
    const header: Record<string, unknown> = {};
    const data: Uint8Array[] = [];
    let at = 0;
    for (const { name: tensor, shape } of checkpoint.tensors()) {
      const values = await checkpoint.readTensor(tensor);
      const all = tensor === `${name}.weight` ? base.map((x) => Math.fround(x + 0.125)) : values;
      header[tensor] = { dtype: "F32", shape, data_offsets: [at, at + all.byteLength] };
      data.push(new Uint8Array(all.buffer));
      at += all.byteLength;
    }
    writeFileSync(
      join(merged, "transformer/diffusion_pytorch_model.safetensors"),
      safetensors(header, Buffer.concat(data)),
    );
    expect(await imagesOf(model, { lora: path })).toEqual(await imagesOf(merged));
  });

  test("what is not of the model is said, and a file of nothing else is refused", async () => {
    const mixed = write("mixed.safetensors", { ...lora(), ...lora("no_such_block.0") });
    const { report } = await draw(model, { lora: mixed });
    expect(report.warnings.join("\n")).toContain("no_such_block");
    const other = write("other.safetensors", lora("no_such_block.0"));
    expect(await femoError("E_WEIGHT", () => draw(model, { lora: other }))).toContain("no_such_block");
  });

  test("is not of a DiT", async () => {
    const path = write("dit-lora.safetensors", lora());
    expect(await femoError("E_OPTION", () => draw("avatars-dit", { lora: path }))).toContain("lora: only of FLUX");
  });
});
