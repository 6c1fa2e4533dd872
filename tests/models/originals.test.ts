import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FemoError } from "../../src/errors.js";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder, isEncoderTensor } from "../../src/models/autoencoder-kl.js";
import { isOriginalAutoencoderKL, originalAutoencoderKL } from "../../src/models/autoencoder-kl-original.js";
import { isOriginalFlux, originalFlux } from "../../src/models/flux-original.js";
import {
  isOriginalClipText,
  isOriginalT5,
  originalClipText,
  originalT5,
} from "../../src/models/text-encoders-original.js";
import { Checkpoint, type TensorInfo } from "../../src/weights/index.js";
import { femoError } from "../weights/helpers.js";
import { expectedOriginals, inFloat32, openOriginal, sumsOf } from "./originals.js";

/** A checkpoint of names and shapes. */
const shaped = (name: string, shapes: Readonly<Record<string, number[]>>): Checkpoint =>
  Checkpoint.fromTensors(
    name,
    Object.entries(shapes).map(([tensor, shape]): TensorInfo => {
      const byteLength = 2 * shape.reduce((a, b) => a * b, 1);
      return { name: tensor, shape, dtype: "float16", file: `/w/${name}`, offset: 0, byteLength };
    }),
  );
/** A checkpoint with a prefix before all its names. */
const prefixed = (checkpoint: Checkpoint, prefix: string, without = ""): Checkpoint =>
  checkpoint.withTensors(
    checkpoint.tensors().map((tensor) => ({ ...tensor, name: prefix + tensor.name.replace(without, "") })),
  );

test("each kind of file is told from the others, alone and in a file of several", async () => {
  const kinds = { flux: isOriginalFlux, vae: isOriginalAutoencoderKL, clip: isOriginalClipText, t5: isOriginalT5 };
  const kindsOf = (checkpoint: Checkpoint) =>
    Object.entries(kinds).flatMap(([kind, is]) => (is(checkpoint) ? [kind] : []));
  for (const [file, kind, prefix] of [
    ["flux1-tiny.safetensors", "flux", "model.diffusion_model."],
    ["flux1-tiny-Q8_0.gguf", "flux", "model.diffusion_model."],
    ["ae-tiny.safetensors", "vae", "vae."],
    ["clip-tiny.safetensors", "clip", "text_encoders.clip_l.transformer."],
    ["t5-tiny.safetensors", "t5", "text_encoders.t5xxl.transformer."],
    ["t5-tiny-Q5_0.gguf", "t5", ""],
    ["golden.safetensors", undefined, ""],
  ] as const) {
    const checkpoint = await openOriginal(file);
    expect(kindsOf(checkpoint)).toEqual(kind ? [kind] : []);
    expect(kindsOf(prefixed(checkpoint, prefix))).toEqual(kind ? [kind] : []);
  }
});

describe("the autoencoder", () => {
  const options = { normNumGroups: 2 };

  test("has the config and, to the bit, the tensors of diffusers' model", async () => {
    const original = await openOriginal("ae-tiny.safetensors");
    for (const file of [original, ...["vae.", "first_stage_model."].map((prefix) => prefixed(original, prefix))]) {
      const { config, checkpoint } = originalAutoencoderKL(file, options);
      expect(config).toMatchObject(expectedOriginals.vae?.config ?? {});
      expect(sumsOf(await inFloat32(checkpoint))).toEqual(expectedOriginals.vae?.tensors);
    }
  });

  test("its decoder takes exactly these tensors", async () => {
    const { config, checkpoint } = originalAutoencoderKL(await openOriginal("ae-tiny.safetensors"), options);
    const { weights } = autoencoderKLDecoder(autoencoderKLConfigFromJson(config)).reachable();
    const expected = weights.map(({ name, shape }) => ({ name, shape: shape as number[] }));
    checkpoint.verify(expected, { ignore: isEncoderTensor });
  });

  test("of another kind is refused", async () => {
    const original = await openOriginal("ae-tiny.safetensors");
    const extra = { ...(original.tensors()[0] as TensorInfo), name: "post_quant_conv.weight" };
    const stable = original.withTensors([...original.tensors(), extra]);
    expect(await femoError("E_WEIGHT", () => originalAutoencoderKL(stable))).toContain("as Stable Diffusion has it");
    expect(await femoError("E_WEIGHT", () => originalAutoencoderKL(shaped("x", { a: [1] })))).toContain(
      "expected the autoencoder of FLUX.1",
    );
    const far = { ...(original.tensors()[0] as TensorInfo), name: "decoder.up.999999999.block.0.conv1.weight" };
    const broken = original.withTensors([...original.tensors(), far]);
    expect(await femoError("E_WEIGHT", () => originalAutoencoderKL(broken))).toContain(
      '"decoder.up.3.block.0.conv1.weight"',
    );
  });
});

describe("CLIP's text encoder", () => {
  test("has the config and, to the bit, the tensors of transformers' model", async () => {
    const original = await openOriginal("clip-tiny.safetensors");
    const files = [
      original,
      prefixed(original, "text_encoders.clip_l.transformer."),
      prefixed(original, "", "text_model."), // as transformers 5 writes it
    ];
    for (const file of files) {
      const { config, checkpoint } = await originalClipText(file, { numAttentionHeads: 2 });
      expect(config).toMatchObject(expectedOriginals.clip?.config ?? {});
      expect(sumsOf(await inFloat32(checkpoint))).toEqual(expectedOriginals.clip?.tensors);
    }
  });

  test("clip_l: a head for every 64 channels", async () => {
    const start = "text_model.e";
    const shapes = {
      [`${start}mbeddings.token_embedding.weight`]: [49408, 768],
      [`${start}mbeddings.position_embedding.weight`]: [77, 768],
      [`${start}ncoder.layers.0.mlp.fc1.weight`]: [3072, 768],
      [`${start}ncoder.layers.11.mlp.fc1.weight`]: [3072, 768],
    };
    expect((await originalClipText(shaped("clip_l.safetensors", shapes))).config).toMatchObject({
      ...{ vocab_size: 49408, hidden_size: 768, intermediate_size: 3072, num_hidden_layers: 12 },
      ...{ num_attention_heads: 12, max_position_embeddings: 77, hidden_act: "quick_gelu", eos_token_id: 2 },
    });
    const odd = shaped("clip.safetensors", { ...shapes, [`${start}mbeddings.token_embedding.weight`]: [9, 100] });
    expect(await femoError("E_CONFIG", () => originalClipText(odd))).toContain("Pass numAttentionHeads");
    expect(await femoError("E_WEIGHT", () => originalClipText(shaped("x", { a: [1] })))).toContain(
      "text encoder of CLIP",
    );
  });
});

describe("T5's encoder", () => {
  test.each([
    ["t5-tiny.safetensors", "t5"], // whose own embedding is not the shared one
    ["t5-tiny-scaled.safetensors", "t5-scaled"],
    ["t5-tiny-Q5_0.gguf", "t5-q5_0"],
  ])("%s has the config and, to the bit, the tensors of transformers' model", async (file, key) => {
    const { config, checkpoint } = await originalT5(await openOriginal(file));
    expect(config).toMatchObject(expectedOriginals[key]?.config ?? {});
    expect(sumsOf(await inFloat32(checkpoint))).toEqual(expectedOriginals[key]?.tensors);
  });

  test("behind a prefix, and beside a decoder", async () => {
    const original = await openOriginal("t5-tiny.safetensors");
    const others = ["decoder.final_layer_norm.weight", "lm_head.weight", "spiece_model"].map((name) => ({
      ...(original.tensors()[0] as TensorInfo),
      name,
    }));
    const whole = original.withTensors([...original.tensors(), ...others]);
    const { config, checkpoint } = await originalT5(prefixed(whole, "text_encoders.t5xxl.transformer."));
    expect(config).toMatchObject(expectedOriginals.t5?.config ?? {});
    expect(sumsOf(await inFloat32(checkpoint))).toEqual(expectedOriginals.t5?.tensors);
  });

  test("T5-XXL: heads of the bias table, their width of the queries", async () => {
    const shapes = {
      "token_embd.weight": [32128, 4096],
      "enc.blk.0.attn_rel_b.weight": [32, 64],
      "enc.blk.0.attn_q.weight": [4096, 4096],
      "enc.blk.0.ffn_gate.weight": [10240, 4096],
      "enc.blk.23.attn_q.weight": [4096, 4096],
    };
    expect((await originalT5(shaped("t5.gguf", shapes))).config).toMatchObject({
      ...{ vocab_size: 32128, d_model: 4096, d_kv: 64, num_heads: 64, d_ff: 10240, num_layers: 24 },
      ...{ relative_attention_num_buckets: 32, relative_attention_max_distance: 128, feed_forward_proj: "gated-gelu" },
    });
    for (const name of Object.keys(shapes).slice(1, 4)) {
      const rest = Object.fromEntries(Object.entries(shapes).filter(([other]) => other !== name));
      expect(await femoError("E_WEIGHT", () => originalT5(shaped("t5.gguf", rest)))).toContain(
        "the encoder of T5 v1.1",
      );
    }
  });
});

/** Any shapes, of which some are those of the file. */
test("whatever the shapes, the result is a config and tensors, or a FemoError", async () => {
  const size = fc.oneof(fc.nat(3), fc.constantFrom(16, 32, 64, 128, 2 ** 20, 2 ** 53 - 1));
  const shape = fc.array(size, { maxLength: 5 });
  for (const [file, open] of [
    ["flux1-tiny.safetensors", (checkpoint) => originalFlux(checkpoint, { axesDimsRope: [4, 6, 6] })],
    ["ae-tiny.safetensors", async (checkpoint) => originalAutoencoderKL(checkpoint)],
    ["clip-tiny.safetensors", (checkpoint) => originalClipText(checkpoint)],
    ["t5-tiny.safetensors", (checkpoint) => originalT5(checkpoint)],
    ["t5-tiny-scaled.safetensors", (checkpoint) => originalT5(checkpoint)],
  ] as [string, (checkpoint: Checkpoint) => Promise<unknown>][]) {
    const original = await openOriginal(file);
    const names = original.names();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.constantFrom(...names), shape), { minLength: 1, maxLength: 3 }),
        fc.array(fc.constantFrom(...names), { maxLength: 2 }),
        async (changes, without) => {
          const shapes = new Map(changes);
          const tensors = original
            .tensors()
            .filter(({ name }) => !without.includes(name))
            .map((tensor) => ({ ...tensor, shape: shapes.get(tensor.name) ?? tensor.shape }));
          try {
            await open(original.withTensors(tensors));
          } catch (error) {
            if (!(error instanceof FemoError)) throw error;
          }
        },
      ),
      { numRuns: 100 },
    );
  }
});
