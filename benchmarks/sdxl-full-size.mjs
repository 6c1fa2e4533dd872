/**
 * SDXL's U-Net at full size in few bits: a full step, and steps between of DeepCache and of forecasts at several levels, with
 * peak memory and state.
 *
 *     npm run build && node benchmarks/sdxl-full-size.mjs --out DIR [--size 512] [--dtype int8] [--threads 2] [--guidance 5]
 *
 * No checkpoint is at hand, so it first writes one with random weights, the U-Net in bfloat16 (5.1 GB), and text encoders that
 * are as wide as SDXL's but two layers deep. femo keeps the converted U-Net in $FEMO_CACHE, another 2.6 GB in 8 bits. What it draws is
 * noise. Linux only: peak memory is the kernel's VmHWM, of this process and its engine's together.
 * benchmarks/peers/sdxl_peer.py times diffusers on the same files.
 */
import { existsSync } from "node:fs";
import { cp, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DiffusionPipeline, deepCache, taylorSeer } from "femo";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder } from "../dist/models/autoencoder-kl.js";
import { clipTextConfigFromJson, clipTextEncoder } from "../dist/models/clip-text.js";
import { unet } from "../dist/models/unet.js";
import { unetConfigFromJson } from "../dist/models/unet-config.js";
import { TorchGenerator } from "../dist/samplers/index.js";
import { traceCut } from "../dist/tracing/index.js";
import { megabytes } from "./memory.mjs";
import { writeRandomPipeline } from "./random-pipeline.mjs";

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    size: { type: "string", default: "512" },
    dtype: { type: "string", default: "int8" },
    threads: { type: "string", default: "2" },
    guidance: { type: "string", default: "5" }, // 1: one row in place of two
    cuts: { type: "string", default: "1,5,6" }, // of DeepCache
    levels: { type: "string", default: "deep.1,transformer,module,output" },
  },
});
if (!values.out) throw new Error("--out DIR is needed");
const [size, threads, guidanceScale] = [values.size, values.threads, values.guidance].map(Number);
if (!existsSync(join(values.out, "model_index.json"))) await writePipeline(values.out);

/** SDXL base with random weights. @param {string} out */
async function writePipeline(out) {
  const tiny = fileURLToPath(new URL("../tests/goldens/sd-pipeline/sdxl/", import.meta.url));
  await mkdir(out, { recursive: true });
  for (const name of ["tokenizer", "tokenizer_2"]) await cp(join(tiny, name), join(out, name), { recursive: true });
  const clip = (hidden_size, hidden_act) => ({
    ...{ hidden_size, hidden_act, intermediate_size: 4 * hidden_size, num_attention_heads: hidden_size / 64 },
    ...{ num_hidden_layers: 2, projection_dim: hidden_size, bos_token_id: 594, eos_token_id: 595 },
  });
  const vae = {
    ...{ block_out_channels: [128, 256, 512, 512], up_block_types: new Array(4).fill("UpDecoderBlock2D") },
    ...{ layers_per_block: 2, latent_channels: 4, sample_size: 1024, scaling_factor: 0.13025 },
  };
  const unetJson = {
    ...{ _class_name: "UNet2DConditionModel", in_channels: 4, out_channels: 4, sample_size: 128 },
    ...{ block_out_channels: [320, 640, 1280], layers_per_block: 2, norm_num_groups: 32 },
    down_block_types: ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    up_block_types: ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    ...{ transformer_layers_per_block: [1, 2, 10], attention_head_dim: [5, 10, 20], cross_attention_dim: 2048 },
    ...{ use_linear_projection: true, addition_embed_type: "text_time", addition_time_embed_dim: 256 },
    projection_class_embeddings_input_dim: 2816,
  };
  const weightsOf = (graph) => graph.reachable().weights.map(({ name, shape }) => ({ name, shape }));
  const [small, large] = [clip(768, "quick_gelu"), clip(1280, "gelu")];
  const models = {
    vae: { config: vae, weights: weightsOf(autoencoderKLDecoder(autoencoderKLConfigFromJson(vae))) },
    text_encoder: {
      config: small,
      weights: weightsOf(clipTextEncoder(clipTextConfigFromJson(small), ["last_hidden_state"])),
    },
    text_encoder_2: {
      config: large,
      weights: weightsOf(clipTextEncoder(clipTextConfigFromJson(large), ["last_hidden_state", "projected"])),
    },
    unet: {
      config: unetJson,
      weights: weightsOf(traceCut(unet(unetConfigFromJson(unetJson)), { hoisted: "inline" }).graph),
      dtype: /** @type {const} */ ("bfloat16"),
    },
  };
  const index = {
    _class_name: "StableDiffusionXLPipeline",
    force_zeros_for_empty_prompt: true,
    scheduler: ["diffusers", "EulerDiscreteScheduler"],
    ...Object.fromEntries(["text_encoder", "tokenizer"].map((name) => [name, ["transformers", "CLIPTextModel"]])),
    ...Object.fromEntries(["text_encoder_2", "tokenizer_2"].map((name) => [name, ["transformers", "CLIPTextModel"]])),
    ...{ unet: ["diffusers", "UNet2DConditionModel"], vae: ["diffusers", "AutoencoderKL"] },
  };
  const scheduler = {
    ...{ _class_name: "EulerDiscreteScheduler", beta_schedule: "scaled_linear", beta_start: 0.00085, beta_end: 0.012 },
    ...{ timestep_spacing: "leading", steps_offset: 1 },
  };
  await writeRandomPipeline(out, { index, scheduler, models }, new TorchGenerator(0).randn([1 << 20]));
}

const start = performance.now();
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const pipeline = await DiffusionPipeline.fromPretrained(values.out, {
  ...{ dtype: /** @type {"int8" | "int4" | "float32"} */ (values.dtype), threads },
  onConvert: ({ tensorsDone, tensorsTotal }) => {
    if (tensorsDone % 100 === 0) console.error(`converted ${tensorsDone} of ${tensorsTotal} tensors`);
  },
});
console.log(
  `SDXL, ${size}x${size}, guidance ${guidanceScale}, ${values.dtype}, ${threads} threads; ` +
    `opened after ${seconds(performance.now() - start)}`,
);
const caches = {
  ...Object.fromEntries(
    values.cuts.split(",").map((cut) => [`deepCache ${cut}`, deepCache({ interval: 2, cacheBranchId: Number(cut) })]),
  ),
  ...Object.fromEntries(
    values.levels
      .split(",")
      .map((granularity) => [
        `taylorSeer ${granularity}`,
        taylorSeer({ order: 1, interval: 2, firstEnhance: 1, granularity, measure: false }),
      ]),
  ),
};
for (const [name, cache] of Object.entries(caches)) {
  const { report } = await pipeline.generate({
    ...{ prompt: "a fox in the snow", seed: 1, height: size, width: size, numInferenceSteps: 2, guidanceScale },
    ...{ outputType: "latent", cache },
    onStep: ({ kind, durationMs, flops }) =>
      console.log(
        `${name}: ${kind}: ${seconds(durationMs)}, ${(flops / 1e12).toFixed(3)} TFLOP, ` +
          `${(flops / durationMs / 1e6).toFixed(0)} GFLOP/s; peak ${(megabytes("VmHWM") / 1000).toFixed(2)} GB`,
      ),
  });
  console.log(`${name}: state ${(report.stateBytes / 1e6).toFixed(1)} MB`);
}
await pipeline.close();
