import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { concat } from "../../src/denoising/index.js";
import { type Graph, sizeOf } from "../../src/graph/index.js";
import { DiffusionPipeline, type PretrainedOptions } from "../../src/index.js";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder } from "../../src/models/autoencoder-kl.js";
import { autoencoderKLEncoder } from "../../src/models/autoencoder-kl-encoder.js";
import { clipTextConfigFromJson, clipTextEncoder } from "../../src/models/clip-text.js";
import { unet } from "../../src/models/unet.js";
import { unetConfigFromJson } from "../../src/models/unet-config.js";
import { originalUnetModule, unetLayoutOf } from "../../src/models/unet-names.js";
import { TorchGenerator } from "../../src/samplers/index.js";
import { traceCut } from "../../src/tracing/index.js";
import { femoError, safetensors } from "../weights/helpers.js";

/*
 * What no tensor of a single file tells follows from its sizes, so these models have the widths of the published text encoders,
 * and heads and groups as those have them; all else is as small as it can be.
 */
const goldens = fileURLToPath(new URL("../goldens/sd-pipeline", import.meta.url));
const root = mkdtempSync(join(tmpdir(), "femo-sd-files-"));
beforeAll(() => {
  vi.stubEnv("FEMO_CACHE", join(root, "cache"));
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(root, { recursive: true });
});

interface Tensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}
type Tensors = Readonly<Record<string, Tensor>>;

const stock = new TorchGenerator(7).randn([1 << 14]);
/** Weights of networks, normal numbers that keep activations in range. */
function random(...graphs: readonly Graph[]): Tensors {
  const weights = graphs.flatMap((graph) => graph.reachable().weights);
  const entries = weights.map(({ name, shape: dims }, k) => {
    const shape = dims as readonly number[];
    const size = sizeOf(shape);
    const gain = shape.length > 1 ? Math.sqrt((shape[0] as number) / size) : 0.1;
    const one = shape.length === 1 && name.endsWith("weight") ? 1 : 0;
    const data = Float32Array.from({ length: size }, (_, i) => {
      return one + gain * (stock[(i + 7919 * k) % stock.length] as number);
    });
    return [name, { shape, data }] as const;
  });
  return Object.fromEntries(entries);
}

function write(path: string, tensors: Tensors): void {
  const header: Record<string, unknown> = {};
  let at = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape, data_offsets: [at, at + data.byteLength] };
    at += data.byteLength;
  }
  const bytes = Object.values(tensors).map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  writeFileSync(path, safetensors(header, Buffer.concat(bytes)));
}

const renamed = (tensors: Tensors, name: (name: string) => string): Tensors =>
  Object.fromEntries(Object.entries(tensors).map(([key, tensor]) => [name(key), tensor]));
const prefixed = (prefix: string, tensors: Tensors): Tensors => renamed(tensors, (name) => prefix + name);

/** The U-Net by the release's names, which tests/models/stable-diffusion-original.test.ts holds against diffusers. */
function originalUnet(tensors: Tensors): Tensors {
  const layout = unetLayoutOf(Object.keys(tensors));
  return renamed(tensors, (name) => {
    const dot = name.lastIndexOf(".");
    return originalUnetModule(name.slice(0, dot), layout) + name.slice(dot);
  });
}

function originalAutoencoder(tensors: Tensors, levels: number): Tensors {
  const parts: Record<string, string> = { group_norm: "norm", to_q: "q", to_k: "k", to_v: "v", "to_out.0": "proj_out" };
  const up = (level: string): number => levels - 1 - Number(level);
  const original = (name: string): string =>
    name
      .replace("conv_norm_out", "norm_out")
      .replace("conv_shortcut", "nin_shortcut")
      .replace(/^encoder\.down_blocks\.(\d)\.(resnets|downsamplers\.0)/, (_, i, kind) => {
        return `encoder.down.${i}.${kind === "resnets" ? "block" : "downsample"}`;
      })
      .replace(/^decoder\.up_blocks\.(\d)\.(resnets|upsamplers\.0)/, (_, i, kind) => {
        return `decoder.up.${up(i)}.${kind === "resnets" ? "block" : "upsample"}`;
      })
      .replace(/mid_block\.resnets\.(\d)/, (_, i) => `mid.block_${Number(i) + 1}`)
      .replace(/mid_block\.attentions\.0\.(.+)\.(\w+)$/, (_, part, kind) => `mid.attn_1.${parts[part]}.${kind}`);
  const entries = Object.entries(tensors).map(([name, { shape, data }]) => {
    const isConvolution = name.includes(".attentions.0.to_") && shape.length === 2;
    return [original(name), { shape: isConvolution ? [...shape, 1, 1] : shape, data }] as const;
  });
  return Object.fromEntries(entries);
}

/** Queries, keys and values joined, and the projection from the other side. */
function originalOpenClip(tensors: Tensors): Tensors {
  const out: Record<string, Tensor> = {};
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    if (/\.(q|k|v)_proj\./.test(name)) continue;
    const original = name
      .replace("embeddings.token_embedding", "token_embedding")
      .replace("embeddings.position_embedding.weight", "positional_embedding")
      .replace("encoder.layers", "transformer.resblocks")
      .replace(/layer_norm(\d)/, "ln_$1")
      .replace("self_attn.out_proj", "attn.out_proj")
      .replace("mlp.fc1", "mlp.c_fc")
      .replace("mlp.fc2", "mlp.c_proj")
      .replace("final_layer_norm", "ln_final")
      .replace("text_projection.weight", "text_projection");
    const [rows, columns] = shape as [number, number];
    out[original] =
      original === "text_projection"
        ? {
            shape: [columns, rows],
            data: data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)] as number),
          }
        : { shape, data };
  }
  for (const name of Object.keys(tensors).filter((key) => key.includes(".q_proj."))) {
    const parts = ["q", "k", "v"].map((part) => tensors[name.replace(".q_proj.", `.${part}_proj.`)] as Tensor);
    const [width, ...rest] = (parts[0] as Tensor).shape as [number, ...number[]];
    const joined = name
      .replace("encoder.layers", "transformer.resblocks")
      .replace("self_attn.q_proj.", "attn.in_proj_");
    const data = concat(parts.map((part) => part.data));
    out[joined] = { shape: [3 * width, ...rest], data };
  }
  return out;
}

const training = {
  ...{ beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear", num_train_timesteps: 1000 },
  ...{ steps_offset: 1, timestep_spacing: "leading", clip_sample: false },
};
const vocabSize = (name: string): number =>
  JSON.parse(readFileSync(join(goldens, "sdxl", name, "config.json"), "utf8")).vocab_size;
const clipL = {
  ...{ vocab_size: vocabSize("text_encoder"), hidden_size: 768, intermediate_size: 16, num_attention_heads: 12 },
  ...{ num_hidden_layers: 2, hidden_act: "quick_gelu", eos_token_id: 2 },
};
const bigG = {
  ...{ vocab_size: vocabSize("text_encoder_2"), hidden_size: 1280, intermediate_size: 16, num_attention_heads: 20 },
  ...{ num_hidden_layers: 1, hidden_act: "gelu", eos_token_id: 2, projection_dim: 1280 },
};
const vae = {
  ...{ block_out_channels: [32, 32, 32, 32], layers_per_block: 1, norm_num_groups: 32, sample_size: 64 },
  down_block_types: new Array(4).fill("DownEncoderBlock2D"),
  up_block_types: new Array(4).fill("UpDecoderBlock2D"),
};
const [X, D] = [
  ["CrossAttnDownBlock2D", "CrossAttnUpBlock2D"],
  ["DownBlock2D", "UpBlock2D"],
];
const levels = (...kinds: (string[] | undefined)[]) => ({
  down_block_types: kinds.map((kind) => kind?.[0]),
  up_block_types: kinds.toReversed().map((kind) => kind?.[1]),
});
const unets = {
  sd1: { ...levels(X, D), block_out_channels: [32, 64], attention_head_dim: 8, cross_attention_dim: 768 },
  sdxl: {
    ...levels(D, X, X),
    ...{ block_out_channels: [64, 64, 128], attention_head_dim: [1, 1, 2], cross_attention_dim: 2048 },
    ...{ use_linear_projection: true, addition_embed_type: "text_time", addition_time_embed_dim: 256 },
    projection_class_embeddings_input_dim: 1280 + 6 * 256,
  },
};
type Kind = keyof typeof unets;

/** A model as a folder of diffusers', and its tensors by the names of the release. */
function makeModel(kind: Kind): { readonly folder: string; readonly original: Tensors } {
  const folder = join(root, kind);
  const isXl = kind === "sdxl";
  const config = { layers_per_block: 1, ...unets[kind] };
  const autoencoder = { ...vae, scaling_factor: isXl ? 0.13025 : 0.18215 };
  const kl = autoencoderKLConfigFromJson(autoencoder);
  const clip = (of: object) => clipTextConfigFromJson(of);
  const models: Record<string, readonly [config: object, tensors: Tensors]> = {
    unet: [config, random(traceCut(unet(unetConfigFromJson(config)), { hoisted: "inline" }).graph)],
    vae: [autoencoder, random(autoencoderKLDecoder(kl), autoencoderKLEncoder(kl))],
    text_encoder: [clipL, random(clipTextEncoder(clip(clipL), ["last_hidden_state"]))],
    ...(isXl && { text_encoder_2: [bigG, random(clipTextEncoder(clip(bigG), ["projected", "hidden_states[-2]"]))] }),
  };
  for (const [name, [config, tensors]] of Object.entries(models)) {
    mkdirSync(join(folder, name), { recursive: true });
    writeFileSync(join(folder, name, "config.json"), JSON.stringify(config));
    const file = name.startsWith("text") ? "model" : "diffusion_pytorch_model";
    write(join(folder, name, `${file}.safetensors`), tensors);
  }
  const scheduler = isXl
    ? { _class_name: "EulerDiscreteScheduler", ...training }
    : { _class_name: "PNDMScheduler", ...training, skip_prk_steps: true };
  mkdirSync(join(folder, "scheduler"));
  writeFileSync(join(folder, "scheduler/scheduler_config.json"), JSON.stringify(scheduler));
  for (const name of ["tokenizer", ...(isXl ? ["tokenizer_2"] : [])]) {
    cpSync(join(goldens, "sdxl", name), join(folder, name), { recursive: true });
  }
  cpSync(join(goldens, kind, "model_index.json"), join(folder, "model_index.json"));
  const tensors = (name: string): Tensors => models[name]?.[1] ?? {};
  return {
    folder,
    original: {
      ...prefixed("model.diffusion_model.", originalUnet(tensors("unet"))),
      ...prefixed("first_stage_model.", originalAutoencoder(tensors("vae"), 4)),
      ...prefixed(
        isXl ? "conditioner.embedders.0.transformer.text_model." : "cond_stage_model.transformer.text_model.",
        tensors("text_encoder"),
      ),
      ...prefixed("conditioner.embedders.1.model.", originalOpenClip(tensors("text_encoder_2"))),
    },
  };
}

const side = 32;
const image = {
  ...{ width: side, height: side },
  data: Uint8Array.from({ length: 3 * side * side }, (_, i) => (i * 37) % 256),
};
const request = { prompt: ["a fox", "two lemons!"], negativePrompt: "snow", seed: 3, height: side, width: side };

async function imagesOf(path: string, options: PretrainedOptions = {}): Promise<Uint8Array[]> {
  await using pipeline = await DiffusionPipeline.fromPretrained(path, { threads: 1, ...options });
  const fromNoise = await pipeline.generate({ ...request, numInferenceSteps: 3 });
  const fromImage = await pipeline.generate({ ...request, numInferenceSteps: 4, image, strength: 0.5 });
  return [...fromNoise.images, ...fromImage.images].map(({ data }) => data);
}

describe.each(["sd1", "sdxl"] as const)("a single file of %s", (kind) => {
  const { folder, original } = makeModel(kind);
  const path = join(root, `${kind}.safetensors`);
  write(path, original);
  const opened = (options: PretrainedOptions = {}, file = path) =>
    DiffusionPipeline.fromPretrained(file, { tokenizer: join(folder, "tokenizer"), ...options });

  test("draws what the folder of the same weights draws, to the bit", async () => {
    const wanted = await imagesOf(folder);
    expect(new Set(wanted[0]).size).toBeGreaterThan(16);
    expect(await imagesOf(path, { tokenizer: folder })).toEqual(wanted);
  });

  test.each<[what: string, prefix: RegExp, option: string]>([
    ["the text encoder", /^(cond_stage_model|conditioner\.embedders\.0)\./, "textEncoder"],
    ["the autoencoder", /^first_stage_model\./, "vae"],
    ...(kind === "sdxl"
      ? ([["the second text encoder", /^conditioner\.embedders\.1\./, "textEncoder2"]] as [string, RegExp, string][])
      : []),
  ])("without %s says which option gives it", async (_, prefix, option) => {
    const file = join(root, `${kind}-without-${option}.safetensors`);
    write(file, Object.fromEntries(Object.entries(original).filter(([name]) => !prefix.test(name))));
    expect(await femoError("E_OPTION", () => opened({}, file))).toMatch(new RegExp(`^${option}: expected`));
    rmSync(file);
  });

  test("without a tokenizer says so", async () => {
    const message = await femoError("E_OPTION", () => DiffusionPipeline.fromPretrained(path));
    expect(message).toMatch(/^tokenizer: expected/);
  });

  test.each([
    ["a tensor is missing", (name: string) => name.endsWith("middle_block.0.in_layers.2.weight")],
    ["an encoder's layer is missing", (name: string) => name.endsWith("mlp.fc1.weight")],
  ])("%s: an error that names it", async (_, isGone) => {
    const file = join(root, `${kind}-damaged.safetensors`);
    write(file, Object.fromEntries(Object.entries(original).filter(([name]) => !isGone(name))));
    expect(await femoError("E_WEIGHT", () => opened({}, file))).toContain(`${kind}-damaged.safetensors`);
    rmSync(file);
  });

  test("cut off anywhere it is refused, as truncated", async () => {
    const whole = readFileSync(path);
    const header = 8 + Number(whole.readBigUInt64LE());
    const file = join(root, `${kind}-cut.safetensors`);
    writeFileSync(file, whole);
    for (const length of [whole.length - 1, header + 1000, header, header - 1, 100, 8, 7, 1, 0]) {
      truncateSync(file, length);
      const message = await femoError(length < header ? "E_FILE" : "E_WEIGHT", () => opened({}, file));
      expect(message).toContain(`${kind}-cut.safetensors`);
      expect(message).toMatch(/truncated|of at least/);
    }
    rmSync(file);
  });
});
