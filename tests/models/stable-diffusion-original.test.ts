import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder, isEncoderTensor } from "../../src/models/autoencoder-kl.js";
import { originalAutoencoderKL } from "../../src/models/autoencoder-kl-original.js";
import { clipTextConfigFromJson, clipTextEncoder } from "../../src/models/clip-text.js";
import { originalOpenClip } from "../../src/models/open-clip-original.js";
import {
  type OriginalStableDiffusionOptions,
  originalStableDiffusion,
  type StableDiffusionFamily,
  stableDiffusionParts,
} from "../../src/models/stable-diffusion-original.js";
import { originalClipText } from "../../src/models/text-encoders-original.js";
import { isOriginalUnet } from "../../src/models/unet-original.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import { Checkpoint, isDerived, openCheckpoint, type TensorInfo } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";
import { entry, floatFile } from "../weights/lora-helpers.js";
import { type Expected, inFloat32, sumsOf } from "./originals.js";

const folder = fileURLToPath(new URL("../goldens/sd-original", import.meta.url));
const open = (file: string): Promise<Checkpoint> => openCheckpoint(nodeFolder(folder), file);
const json = (file: string) => JSON.parse(readFileSync(`${folder}/${file}`, "utf8"));
const expected: Readonly<Record<string, Expected>> = json("expected.json");

const tiny = { normNumGroups: 2, additionTimeEmbedDim: 2 };
/** File, family, and what no shape of the tiny model tells. */
const FILES: readonly (readonly [string, StableDiffusionFamily, OriginalStableDiffusionOptions])[] = [
  ["sd1-tiny.ckpt", "sd1", { ...tiny, attentionHeadDim: 2 }],
  ["sd2-inpainting-tiny.safetensors", "sd2", { ...tiny, attentionHeadDim: [2, 4] }],
  ["sdxl-tiny.safetensors", "sdxl", { ...tiny, attentionHeadDim: [1, 2, 4] }],
  ["sdxl-refiner-tiny.safetensors", "sdxl-refiner", { ...tiny, attentionHeadDim: [1, 2, 4] }],
  ["ssd-1b-unet-tiny.safetensors", "ssd-1b", { ...tiny, attentionHeadDim: [1, 2, 4] }],
];

describe.each(FILES)("%s", (file, family, options) => {
  test("has the config and, to the bit, the tensors of diffusers' U-Net", async () => {
    const checkpoint = await open(file);
    expect(isOriginalUnet(checkpoint)).toBe(true);
    const { unet, inpainting } = await originalStableDiffusion(checkpoint, { ...options, family });
    const { sample_size: _, ...config } = expected[family]?.config ?? {};
    expect(unet.config).toMatchObject(config);
    expect(inpainting).toBe(family === "sd2");
    expect(sumsOf(await inFloat32(unet.checkpoint))).toEqual(expected[family]?.tensors);
  });

  test("its U-Net is the bytes of the file, in its precision", async () => {
    const checkpoint = await open(file);
    const { unet } = await originalStableDiffusion(checkpoint, { ...options, family });
    const places = new Set(
      (checkpoint.tensors() as TensorInfo[]).map(({ offset, byteLength }) => `${offset} ${byteLength}`),
    );
    for (const tensor of unet.checkpoint.tensors()) {
      expect(isDerived(tensor)).toBe(false);
      expect(tensor).toMatchObject({ dtype: "float16" });
      expect(places).toContain(`${(tensor as TensorInfo).offset} ${(tensor as TensorInfo).byteLength}`);
    }
  });

  test("its family has to be said, as no release has text so narrow", async () => {
    const checkpoint = await open(file);
    expect(await femoError("E_CONFIG", () => originalStableDiffusion(checkpoint, options))).toContain("Pass family");
  });
});

describe("the parts beside the U-Net", () => {
  const clip = { numAttentionHeads: 2 };
  const big = { numAttentionHeads: 4 };
  const parts = (family: StableDiffusionFamily) =>
    stableDiffusionParts(family, {
      normNumGroups: 2,
      imageSize: 32,
      textEncoder: family === "sd2" ? big : clip,
      textEncoder2: big,
    });

  test("are found where they are", async () => {
    for (const [file, family, there] of [
      ["sd1-tiny.ckpt", "sd1", ["vae", "textEncoder"]],
      ["sd2-inpainting-tiny.safetensors", "sd2", ["textEncoder"]],
      ["sdxl-tiny.safetensors", "sdxl", ["vae", "textEncoder", "textEncoder2"]],
      ["sdxl-refiner-tiny.safetensors", "sdxl-refiner", ["textEncoder2"]],
      ["ssd-1b-unet-tiny.safetensors", "ssd-1b", []],
    ] as const) {
      const checkpoint = await open(file);
      const { vae, textEncoder, textEncoder2 } = parts(family);
      const found = Object.entries({ vae, textEncoder, textEncoder2 }).filter(([, part]) => part?.isThere(checkpoint));
      expect(found.map(([name]) => name)).toEqual(there);
    }
  });

  test.each([
    ["sd1-tiny.ckpt", "sd1", "vae", "vae"],
    ["sdxl-tiny.safetensors", "sdxl", "vae", "vae"],
    ["sd1-tiny.ckpt", "sd1", "textEncoder", "clip"],
    ["sdxl-tiny.safetensors", "sdxl", "textEncoder", "clip"],
    ["sdxl-tiny.safetensors", "sdxl", "textEncoder2", "open-clip"],
    ["sdxl-refiner-tiny.safetensors", "sdxl-refiner", "textEncoder2", "open-clip"],
    ["sd2-inpainting-tiny.safetensors", "sd2", "textEncoder", "open-clip-penultimate"],
  ] as const)(
    "%s, %s: %s has the config and, to the bit, the tensors of the reference",
    async (file, family, part, key) => {
      const opened = await parts(family)[part]?.open(await open(file));
      expect(opened?.config).toMatchObject(part === "vae" || key === "open-clip" ? (expected[key]?.config ?? {}) : {});
      const { projection_dim: _, ...config } = expected[key]?.config ?? {};
      expect(opened?.config).toMatchObject(config);
      expect(sumsOf(await inFloat32(opened?.checkpoint as Checkpoint))).toEqual(expected[key]?.tensors);
    },
  );

  test("are exactly what the graphs take", async () => {
    const file = await open("sdxl-tiny.safetensors");
    const { vae, textEncoder, textEncoder2 } = parts("sdxl");
    const decoder = await vae.open(file);
    const needs = (graph: ReturnType<typeof autoencoderKLDecoder>) =>
      graph.reachable().weights.map(({ name, shape }) => ({ name, shape: shape as number[] }));
    decoder.checkpoint.verify(needs(autoencoderKLDecoder(autoencoderKLConfigFromJson(decoder.config))), {
      ignore: isEncoderTensor,
    });
    for (const [part, outputs] of [
      [textEncoder, ["last_hidden_state"]],
      [textEncoder2, ["projected"]],
    ] as const) {
      const { config, checkpoint } = await (part as NonNullable<typeof part>).open(file);
      checkpoint.verify(needs(clipTextEncoder(clipTextConfigFromJson(config), outputs)));
    }
  });

  test("the autoencoder has the scale of its release", async () => {
    const file = await open("sd1-tiny.ckpt");
    expect((await parts("sd1").vae.open(file)).config).toMatchObject({
      ...{ scaling_factor: 0.18215, force_upcast: false, sample_size: 32, use_quant_conv: true },
    });
    expect((await parts("sdxl").vae.open(file)).config).toMatchObject({ scaling_factor: 0.13025, force_upcast: true });
    expect(await femoError("E_WEIGHT", () => originalAutoencoderKL(file))).toContain("as Stable Diffusion has it");
    const withoutQuant = file.withTensors(file.tensors().filter(({ name }) => !name.includes("quant_conv")));
    expect(await femoError("E_WEIGHT", () => parts("sd1").vae.open(withoutQuant))).toContain("as FLUX.1 has it");
  });

  test("an autoencoder alone, with what its training left", async () => {
    const file = await open("sd1-tiny.ckpt");
    const prefix = "first_stage_model.";
    const own = file.tensors().filter(({ name }) => name.startsWith(prefix));
    const bare = own.map((tensor) => ({ ...tensor, name: tensor.name.slice(prefix.length) }));
    const leftovers = ["loss.logvar", "model_ema.decay"].map((name) => ({ ...(own[0] as TensorInfo), name }));
    const { checkpoint } = await parts("sd1").vae.open(file.withTensors([...bare, ...leftovers]));
    expect(sumsOf(await inFloat32(checkpoint))).toEqual(expected.vae?.tensors);
  });

  test("CLIP without text_model. before its names", async () => {
    const file = await open("sdxl-tiny.safetensors");
    const short = file.withTensors(
      file
        .tensors()
        .map((tensor) => ({ ...tensor, name: tensor.name.replace("transformer.text_model.", "transformer.") })),
    );
    const { checkpoint } = await originalClipText(short, clip);
    expect(sumsOf(await inFloat32(checkpoint))).toEqual(expected.clip?.tensors);
  });

  test("OpenCLIP by transformers' names, in a file of its own", async () => {
    const { checkpoint } = await originalOpenClip(await open("sdxl-tiny.safetensors"), { ...big, use: "pooled" });
    const file = checkpoint.withTensors(
      checkpoint
        .tensors()
        .map((tensor) => ({ ...tensor, name: tensor.name.replace(/^(?!text_projection)/, "text_model.") })),
    );
    const part = parts("sdxl").textEncoder2;
    expect(part?.isThere(file)).toBe(true);
    const opened = await part?.open(file);
    expect(opened?.config).toMatchObject(expected["open-clip"]?.config ?? {});
    expect(sumsOf(await inFloat32(opened?.checkpoint as Checkpoint))).toEqual(expected["open-clip"]?.tensors);
  });

  test("OpenCLIP: what it joins are ranges of its rows; only the projection is computed, in its precision", async () => {
    const { checkpoint } = await originalOpenClip(await open("sdxl-tiny.safetensors"), { ...big, use: "pooled" });
    expect(checkpoint.tensors().filter(isDerived)).toMatchObject([
      { name: "text_projection.weight", dtype: "float16", shape: [5, 8] },
    ]);
    const at = (part: string) =>
      (checkpoint.get(`encoder.layers.1.self_attn.${part}_proj.weight`) as TensorInfo).offset;
    expect([at("k") - at("q"), at("v") - at("k")]).toEqual([2 * 8 * 8, 2 * 8 * 8]);
  });

  test("OpenCLIP-H, with and without the layer that nobody uses", async () => {
    const shapes = (layers: number): [string, number[]][] => [
      ["token_embedding.weight", [49408, 1024]],
      ["positional_embedding", [77, 1024]],
      ["logit_scale", []],
      ["ln_final.weight", [1024]],
      ["ln_final.bias", [1024]],
      ["text_projection", [1024, 1024]],
      ...Array.from({ length: layers }, (_, i): [string, number[]][] =>
        (
          [
            ["ln_1", 1024],
            ["ln_2", 1024],
            ["attn.out_proj", 1024, 1024],
            ["mlp.c_fc", 4096, 1024],
            ["mlp.c_proj", 1024, 4096],
            ["attn.in_proj", 3072, 1024],
          ] as [string, ...number[]][]
        ).flatMap(([part, ...shape]) =>
          ["weight", "bias"].map((kind): [string, number[]] => [
            `transformer.resblocks.${i}.${part}${part.endsWith("in_proj") ? "_" : "."}${kind}`,
            kind === "weight" ? shape : shape.slice(0, 1),
          ]),
        ),
      ).flat(),
    ];
    for (const layers of [24, 23]) {
      const named = shapes(layers).map(([name, shape]): [string, number[]] => [
        `cond_stage_model.model.${name}`,
        shape,
      ]);
      const { config, checkpoint } = await originalOpenClip(shaped("sd2.safetensors", named), { use: "penultimate" });
      expect(config).toMatchObject({
        ...{ num_hidden_layers: 23, num_attention_heads: 16, hidden_size: 1024, intermediate_size: 4096 },
        ...{ vocab_size: 49408, max_position_embeddings: 77, hidden_act: "gelu" },
      });
      expect(checkpoint.names()).toHaveLength(2 + 23 * 16 + 2);
    }
    const missing = shapes(24).filter(([name]) => name !== "transformer.resblocks.3.ln_2.bias");
    expect(await femoError("E_WEIGHT", () => originalOpenClip(shaped("x", missing), { use: "penultimate" }))).toContain(
      '"transformer.resblocks.3.ln_2.bias" [1024]',
    );
  });
});

/** A checkpoint of names and shapes. */
function shaped(name: string, shapes: readonly (readonly [string, readonly number[]])[]): Checkpoint {
  return Checkpoint.fromTensors(
    name,
    shapes.map(([tensor, shape]): TensorInfo => {
      const byteLength = 2 * shape.reduce((a, b) => a * b, 1);
      return { name: tensor, shape, dtype: "float16", file: `/w/${name}`, offset: 0, byteLength };
    }),
  );
}

interface FullSize {
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: number;
  readonly parameters: number;
  /** Of names and shapes in the release's layout, and in diffusers'. */
  readonly original: string;
  readonly diffusers: string;
}
const fullSize: Readonly<Record<string, FullSize>> = json("full-size.json");

/** The release's list of blocks, built as its code does, from its numbers. */
interface Release {
  readonly width: number;
  readonly multipliers: readonly number[];
  /** Depths of attention in the layers of the input and the output blocks, and in the middle. */
  readonly down: readonly (readonly number[])[];
  readonly up: readonly (readonly number[])[];
  readonly mid?: number;
  readonly context: number;
  readonly linear?: boolean;
  readonly inChannels?: number;
  readonly label?: number;
}
const sd = { width: 320, multipliers: [1, 2, 4, 4], mid: 1 };
const sdDown = [
  [1, 1],
  [1, 1],
  [1, 1],
  [0, 0],
];
const sdUp = [
  [0, 0, 0],
  [1, 1, 1],
  [1, 1, 1],
  [1, 1, 1],
];
const xl = { width: 320, multipliers: [1, 2, 4], context: 2048, linear: true, label: 2816 };
const RELEASES: Readonly<Record<string, Release>> = {
  sd1: { ...sd, down: sdDown, up: sdUp, context: 768 },
  "sd1-inpainting": { ...sd, down: sdDown, up: sdUp, context: 768, inChannels: 9 },
  sd2: { ...sd, down: sdDown, up: sdUp, context: 1024, linear: true },
  sdxl: {
    ...xl,
    down: [
      [0, 0],
      [2, 2],
      [10, 10],
    ],
    mid: 10,
    up: [
      [10, 10, 10],
      [2, 2, 2],
      [0, 0, 0],
    ],
  },
  "sdxl-refiner": {
    ...{ width: 384, multipliers: [1, 2, 4, 4], context: 1280, linear: true, label: 2560, mid: 4 },
    down: [
      [0, 0],
      [4, 4],
      [4, 4],
      [0, 0],
    ],
    up: [
      [0, 0, 0],
      [4, 4, 4],
      [4, 4, 4],
      [0, 0, 0],
    ],
  },
  "ssd-1b": {
    ...xl,
    down: [
      [0, 0],
      [2, 2],
      [4, 4],
    ],
    up: [
      [4, 4, 10],
      [2, 1, 1],
      [0, 0, 0],
    ],
  },
  vega: {
    ...xl,
    down: [
      [0, 0],
      [1, 1],
      [2, 2],
    ],
    up: [
      [2, 2, 2],
      [1, 1, 1],
      [0, 0, 0],
    ],
  },
};

function release({ width, multipliers, down, up, mid, context, linear, inChannels = 4, label }: Release) {
  const shapes: [string, number[]][] = [];
  const layer = (name: string, ...shape: number[]) =>
    shapes.push([`${name}.weight`, shape], [`${name}.bias`, shape.slice(0, 1)]);
  const embedding = 4 * width;
  const resnet = (name: string, from: number, to: number) => {
    layer(`${name}.in_layers.0`, from);
    layer(`${name}.in_layers.2`, to, from, 3, 3);
    layer(`${name}.emb_layers.1`, to, embedding);
    layer(`${name}.out_layers.0`, to);
    layer(`${name}.out_layers.3`, to, to, 3, 3);
    if (from !== to) layer(`${name}.skip_connection`, to, from, 1, 1);
  };
  const attention = (name: string, to: number, depth: number) => {
    layer(`${name}.norm`, to);
    for (const end of ["in", "out"]) layer(`${name}.proj_${end}`, to, to, ...(linear ? [] : [1, 1]));
    for (let i = 0; i < depth; i++) {
      const block = `${name}.transformer_blocks.${i}`;
      for (const j of [1, 2, 3]) layer(`${block}.norm${j}`, to);
      for (const [j, text] of [
        [1, to],
        [2, context],
      ] as const) {
        shapes.push([`${block}.attn${j}.to_q.weight`, [to, to]]);
        shapes.push([`${block}.attn${j}.to_k.weight`, [to, text]], [`${block}.attn${j}.to_v.weight`, [to, text]]);
        layer(`${block}.attn${j}.to_out.0`, to, to);
      }
      layer(`${block}.ff.net.0.proj`, 8 * to, to);
      layer(`${block}.ff.net.2`, to, 4 * to);
    }
  };
  layer("time_embed.0", embedding, width);
  layer("time_embed.2", embedding, embedding);
  if (label) layer("label_emb.0.0", embedding, label);
  if (label) layer("label_emb.0.2", embedding, embedding);
  layer("input_blocks.0.0", width, inChannels, 3, 3);
  const skips = [width];
  let [block, x] = [1, width];
  for (const [level, depths] of down.entries()) {
    const to = width * (multipliers[level] as number);
    for (const depth of depths) {
      resnet(`input_blocks.${block}.0`, x, to);
      if (depth > 0) attention(`input_blocks.${block}.1`, to, depth);
      skips.push(to);
      [x, block] = [to, block + 1];
    }
    if (level === down.length - 1) continue;
    layer(`input_blocks.${block++}.0.op`, to, to, 3, 3);
    skips.push(to);
  }
  resnet("middle_block.0", x, x);
  if (mid !== undefined) attention("middle_block.1", x, mid);
  if (mid !== undefined) resnet("middle_block.2", x, x);
  block = 0;
  for (const [i, depths] of up.entries()) {
    const to = width * (multipliers.at(-1 - i) as number);
    for (const [r, depth] of depths.entries()) {
      resnet(`output_blocks.${block}.0`, x + (skips.pop() as number), to);
      if (depth > 0) attention(`output_blocks.${block}.1`, to, depth);
      const isLast = r === depths.length - 1 && i < up.length - 1;
      if (isLast) layer(`output_blocks.${block}.${depth > 0 ? 2 : 1}.conv`, to, to, 3, 3);
      [x, block] = [to, block + 1];
    }
  }
  layer("out.0", width);
  layer("out.2", 4, width, 3, 3);
  return shapes;
}

const digest = (shapes: readonly (readonly [string, readonly number[]])[]): string => {
  const lines = shapes.map(([name, shape]) => `${name} ${shape.join()}`).sort((a, b) => (a < b ? -1 : 1));
  return createHash("sha256").update(lines.join("\n")).digest("hex").slice(0, 16);
};

/** The published U-Nets by the release's names, alone or in a file of all. */
const published = (key: string, prefix = "model.diffusion_model.", more: readonly [string, number[]][] = []) =>
  shaped(`${key}.safetensors`, [
    ...release(RELEASES[key] as Release).map(([name, shape]): [string, number[]] => [prefix + name, shape]),
    ...more,
  ]);
const said = { predictionType: "epsilon" } as const; // without bytes nothing tells the two of Stable Diffusion 2

describe("the published sizes", () => {
  test.each([
    ["sd1", "sd1", false, 512, "PNDMScheduler"],
    ["sd1-inpainting", "sd1", true, 512, "DDIMScheduler"],
    ["sd2", "sd2", false, 512, "PNDMScheduler"],
    ["sdxl", "sdxl", false, 1024, "EulerDiscreteScheduler"],
    ["sdxl-refiner", "sdxl-refiner", false, 1024, "EulerDiscreteScheduler"],
    ["ssd-1b", "ssd-1b", false, 1024, "EulerDiscreteScheduler"],
    ["vega", "vega", false, 1024, "EulerDiscreteScheduler"],
  ] as const)(
    "%s is told by names and shapes, and becomes exactly diffusers' model",
    async (key, family, inpainting, imageSize, scheduler) => {
      const { config, ...golden } = fullSize[key] as FullSize;
      expect(digest(release(RELEASES[key] as Release))).toBe(golden.original);
      for (const prefix of ["", "diffusion_model.", "model.diffusion_model."]) {
        const found = await originalStableDiffusion(published(key, prefix), key === "sd2" ? said : {});
        expect(found).toMatchObject({ family, inpainting, imageSize, distilled: undefined });
        expect(found.scheduler).toMatchObject({ _class_name: scheduler, prediction_type: "epsilon", steps_offset: 1 });
        expect(found.unet.config).toMatchObject({ ...config, sample_size: imageSize / 8 });
        expect(found.unet.checkpoint.names()).toHaveLength(golden.tensors);
        expect(digest(found.unet.checkpoint.tensors().map(({ name, shape }) => [name, shape]))).toBe(golden.diffusers);
      }
    },
  );

  test("no part of XL's is there in a bare U-Net", async () => {
    const { vae, textEncoder, textEncoder2 } = stableDiffusionParts("sdxl");
    for (const part of [vae, textEncoder, textEncoder2]) expect(part?.isThere(published("sdxl", ""))).toBe(false);
  });
});

describe("what it predicts", () => {
  /** A tiny file with marks, a header and the biases of a norm. */
  async function scheduler(
    family: StableDiffusionFamily,
    options: OriginalStableDiffusionOptions = {},
    {
      marks = [],
      header,
      biases = [0, 0, 0, 0],
    }: { marks?: string[]; header?: Record<string, string>; biases?: number[] } = {},
  ) {
    const shapes = release({
      ...{ width: 4, multipliers: [1], down: [[1]], up: [[1, 1]], mid: 1, context: 3, linear: true },
      ...(family === "sdxl" && { label: 9 }),
    });
    const entries = shapes.map(([name, shape]) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1);
      if (name === "output_blocks.1.1.transformer_blocks.0.norm1.bias") values.set(biases);
      return [`model.diffusion_model.${name}`, entry(shape, values)] as const;
    });
    const file = await floatFile(
      { ...Object.fromEntries(entries), ...Object.fromEntries(marks.map((mark) => [mark, entry([])])) },
      header,
    );
    return originalStableDiffusion(file, { ...options, family, normNumGroups: 2, attentionHeadDim: 2 });
  }
  const typeOf = async (...of: Parameters<typeof scheduler>) => (await scheduler(...of)).scheduler.prediction_type;
  const header = { "modelspec.prediction_type": "v" };

  test("the user's word goes before the header, the header before marks, and these before what is usual", async () => {
    expect(await typeOf("sdxl")).toBe("epsilon");
    expect(await typeOf("sdxl", {}, { marks: ["v_pred"] })).toBe("v_prediction");
    expect(await typeOf("sdxl", {}, { header })).toBe("v_prediction");
    const epsilon = { "modelspec.prediction_type": "epsilon" };
    expect(await typeOf("sdxl", {}, { marks: ["v_pred"], header: epsilon })).toBe("epsilon");
    expect(await typeOf("sdxl", { predictionType: "epsilon" }, { header })).toBe("epsilon");
    expect(await typeOf("sd1", {}, { marks: ["v_pred"] })).toBe("v_prediction");
  });

  test("a schedule down to no signal, of models that predict v: steps start at its end", async () => {
    const marked = await scheduler("sdxl", {}, { marks: ["v_pred", "ztsnr"] });
    expect(marked.scheduler).toMatchObject({ rescale_betas_zero_snr: true, timestep_spacing: "trailing" });
    const plain = await scheduler("sdxl", {}, { marks: ["v_pred"] });
    expect(plain.scheduler).toMatchObject({ timestep_spacing: "leading" });
    expect(plain.scheduler).not.toHaveProperty("rescale_betas_zero_snr");
    const told = await scheduler("sd1", { predictionType: "v_prediction", rescaleBetasZeroSnr: true });
    expect(told.scheduler).toMatchObject({ _class_name: "DDIMScheduler", rescale_betas_zero_snr: true });
  });

  test("Stable Diffusion 2: the architecture's name, or how one norm's biases spread", async () => {
    const architecture = (name: string) => ({ header: { "modelspec.architecture": name } });
    expect(await typeOf("sd2", {}, architecture("stable-diffusion-v2-768-v"))).toBe("v_prediction");
    expect(await typeOf("sd2", {}, architecture("stable-diffusion-v2-512"))).toBe("epsilon");
    expect(await typeOf("sd2", {}, { biases: [0.08, -0.08, 0.08, -0.08] })).toBe("epsilon");
    const v = await scheduler("sd2", {}, { biases: [0.1, -0.1, 0.1, -0.1] });
    expect(v.scheduler).toMatchObject({ _class_name: "DDIMScheduler", prediction_type: "v_prediction" });
    expect(v).toMatchObject({ imageSize: 768, unet: { config: { sample_size: 96, upcast_attention: true } } });
    expect(await typeOf("sdxl", {}, { biases: [9, 0, 9, 0] })).toBe("epsilon");
  });

  test("a file of training says its steps beside the weights", async () => {
    expect((await (await open("sd1-tiny.ckpt")).metadata()).get("global_step")).toBe("875000");
  });

  test("XL Turbo by its header, LCM by the embedding of its guidance", async () => {
    const turbo = await scheduler("sdxl", {}, { header: { "modelspec.architecture": "stable-diffusion-xl-turbo-v1" } });
    expect(turbo).toMatchObject({ distilled: "turbo", imageSize: 512 });
    expect(turbo.scheduler).toMatchObject({
      ...{ _class_name: "EulerAncestralDiscreteScheduler", timestep_spacing: "trailing" },
    });
    const [file, family, options] = FILES[4] as (typeof FILES)[number];
    const lcm = await originalStableDiffusion(await open(file), { ...options, family });
    expect(lcm).toMatchObject({ distilled: "lcm", scheduler: { _class_name: "LCMScheduler" } });
  });

  test("EDM and words that mean nothing are refused", async () => {
    for (const mark of ["edm_vpred.sigma_max", "edm_mean", "edm_std"]) {
      const message = await femoError("E_WEIGHT", () => scheduler("sdxl", said, { marks: [mark] }));
      expect(message).toContain(`"${mark}"`);
    }
    const odd = { header: { "modelspec.prediction_type": "rectified" } };
    expect(await femoError("E_WEIGHT", () => scheduler("sdxl", {}, odd))).toContain('"rectified"');
    expect(await typeOf("sdxl", said, odd)).toBe("epsilon");
  });
});

describe("refused by name:", () => {
  const changed = (key: string, change: (shapes: Map<string, number[]>) => void): Checkpoint => {
    const shapes = new Map(release(RELEASES[key] as Release));
    change(shapes);
    return shaped("other.safetensors", [...shapes]);
  };
  const input = (channels: number) => (shapes: Map<string, number[]>) =>
    void shapes.set("input_blocks.0.0.weight", [320, channels, 3, 3]);
  const added = (name: string, shape: number[]) => (shapes: Map<string, number[]>) => void shapes.set(name, shape);

  test.each<[string, string, (shapes: Map<string, number[]>) => void, RegExp]>([
    ["instruct variants", "sd1", input(8), /InstructPix2Pix/],
    ["depth", "sd2", input(5), /a depth map/],
    ["upscalers", "sd2", added("label_emb.weight", [1000, 1280]), /an upscaler/],
    ["other inputs", "sd1", input(12), /takes 12 channels and gives 4/],
    ["image variations", "sd2", added("label_emb.0.0.weight", [1280, 2048]), /Stable unCLIP/],
    ["video", "sd2", added("input_blocks.1.0.time_stack.in_layers.0.weight", [320]), /Stable Video Diffusion/],
    ["XL without its sizes", "sdxl", (shapes) => void shapes.delete("label_emb.0.0.weight"), /not told the size/],
    [
      "attention here and there",
      "sd1",
      (shapes) => void shapes.delete("input_blocks.2.1.norm.weight"),
      /in some of its/,
    ],
    [
      "uneven levels",
      "sd1",
      (shapes) => void shapes.delete("input_blocks.11.0.in_layers.2.weight"),
      /2, 2, 2, 1 residual/,
    ],
    [
      "no text",
      "sd1",
      (shapes) => void [...shapes.keys()].map((n) => n.includes("attn2") && shapes.delete(n)),
      /attention to text/,
    ],
    [
      "depth without end",
      "sd1",
      added("middle_block.1.transformer_blocks.999999999.x", [1]),
      /attention of 1000000000/,
    ],
    [
      "another middle",
      "sdxl",
      added("middle_block.1.transformer_blocks.10.x", [1]),
      /11 transformer blocks in the middle/,
    ],
  ])("%s", async (_, key, change, message) => {
    const file = changed(key, change);
    expect(await femoError("E_WEIGHT", () => originalStableDiffusion(file, said))).toMatch(message);
  });

  test("missing, surplus and misshapen tensors, with the release's names", async () => {
    const name = "output_blocks.4.1.transformer_blocks.1.attn2.to_v.weight";
    const missing = changed("sdxl", (shapes) => shapes.delete(name));
    expect(await femoError("E_WEIGHT", () => originalStableDiffusion(missing))).toContain(`"${name}" [640, 2048]`);
    const wrong = changed("sdxl", (shapes) => shapes.set(name, [640, 768]));
    expect(await femoError("E_WEIGHT", () => originalStableDiffusion(wrong))).toContain("found [640, 768]");
    const surplus = changed("sdxl", (shapes) => shapes.set("input_blocks.1.0.more.weight", [1]));
    expect(await femoError("E_WEIGHT", () => originalStableDiffusion(surplus))).toContain(
      '"input_blocks.1.0.more.weight"',
    );
    for (const nothing of [shaped("x", [["a", [1]]]), shaped("control", [["input_blocks.0.0.weight", [1, 4, 3, 3]]])]) {
      expect(isOriginalUnet(nothing)).toBe(false);
      expect(await femoError("E_WEIGHT", () => originalStableDiffusion(nothing))).toContain(
        "a U-Net of Stable Diffusion",
      );
    }
  });

  test("heads and groups that do not divide the widths", async () => {
    for (const [options, message] of [
      [{ attentionHeadDim: 7 }, "Pass attentionHeadDim"],
      [{ attentionHeadDim: [5, 10] }, "Pass attentionHeadDim"],
      [{ attentionHeadDim: 0 }, "Pass attentionHeadDim"],
      [{ normNumGroups: 33 }, "Pass normNumGroups"],
    ] as const) {
      expect(await femoError("E_CONFIG", () => originalStableDiffusion(published("sdxl"), options))).toContain(message);
    }
  });
});

/** Any shapes, of which some are those of the file. */
test("whatever the names and shapes, the result is a model or a FemoError", async () => {
  const size = fc.oneof(fc.nat(3), fc.constantFrom(4, 8, 320, 2 ** 20, 2 ** 53 - 1));
  const shape = fc.array(size, { maxLength: 5 });
  for (const [file, family, options] of FILES) {
    const original = await open(file);
    const names = original.names();
    const parts = stableDiffusionParts(family, { normNumGroups: 2 });
    const name = fc.oneof(
      fc.constantFrom(...names),
      fc
        .tuple(fc.constantFrom(...names), fc.constantFrom("0", "7", "63", "999999999", "99999999999"))
        .map(([name, digits]) => name.replace(/\.\d+\./, `.${digits}.`)),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(name, shape), { minLength: 1, maxLength: 3 }),
        fc.array(fc.constantFrom(...names), { maxLength: 2 }),
        async (changes, without) => {
          const shapes = new Map(changes);
          const first = original.tensors()[0] as TensorInfo;
          const added = [...shapes]
            .filter(([name]) => !original.get(name))
            .map(([name, shape]) => ({ ...first, name, shape }));
          const tensors = original
            .tensors()
            .filter(({ name }) => !without.includes(name))
            .map((tensor) => ({ ...tensor, shape: shapes.get(tensor.name) ?? tensor.shape }));
          const damaged = original.withTensors([...tensors, ...added]);
          for (const run of [
            () => originalStableDiffusion(damaged, { ...options, family }),
            ...[parts.vae, parts.textEncoder, parts.textEncoder2].map((part) => async () => part?.open(damaged)),
          ]) {
            try {
              await run();
            } catch (error) {
              if (!(error instanceof FemoError)) throw error;
            }
          }
        },
      ),
      { numRuns: 40 },
    );
  }
});
