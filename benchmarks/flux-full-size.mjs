/**
 * FLUX.1 at full size in 4 bits: what opening it takes, a prompt, a full step, and forecast steps at two levels, with peak memory.
 *
 *     npm run build && node benchmarks/flux-full-size.mjs --out DIR [--model dev] [--size 512] [--tokens 512] [--steps 3] [--threads 2]
 *
 * No checkpoint is at hand, so it first writes one with random weights: the transformer and T5-XXL as GGUF files in Q4_0, as
 * people have them (6.8 and 2.7 GB), CLIP-L and the autoencoder's decoder in float32. femo repacks the matrices without loss and
 * keeps them ($FEMO_CACHE), as much again. What it draws is noise. Linux only: peak memory is the kernel's VmHWM, of this process
 * and its engine's together. stable-diffusion.cpp reads the same files: benchmarks/peers/README.md.
 */
import { existsSync } from "node:fs";
import { cp, mkdir, open, rename } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { DiffusionPipeline } from "femo";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder } from "../dist/models/autoencoder-kl.js";
import { clipTextConfigFromJson, clipTextEncoder } from "../dist/models/clip-text.js";
import { fluxDev, fluxSchnell } from "../dist/models/flux-config.js";
import { originalFluxTensors } from "../dist/models/flux-original.js";
import { t5ConfigFromJson, t5Encoder } from "../dist/models/t5.js";
import { TorchGenerator } from "../dist/samplers/index.js";
import { megabytes } from "./memory.mjs";
import { writeRandomPipeline } from "./random-pipeline.mjs";

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    model: { type: "string", default: "dev" },
    size: { type: "string", default: "512" },
    tokens: { type: "string", default: "512" }, // of the prompt, padding counted
    steps: { type: "string", default: "3" },
    threads: { type: "string", default: "2" },
    levels: { type: "string", default: "output,stack" },
    blocks: { type: "string", default: "19,38" }, // fewer, for trying it
    text: { type: "string", default: "12,24" }, // layers of CLIP and T5, likewise
  },
});
if (!values.out) throw new Error("--out DIR is needed");
const [size, threads, numInferenceSteps, maxSequenceLength] = [
  values.size,
  values.threads,
  values.steps,
  values.tokens,
].map(Number);
const parts = join(values.out, "parts");
const [numLayers, numSingleLayers] = values.blocks.split(",").map(Number);
const config = { ...(values.model === "dev" ? fluxDev : fluxSchnell), numLayers, numSingleLayers };
const transformer = join(values.out, `flux1-${values.model}-${values.blocks}-Q4_0.gguf`);
const [clipLayers, t5Layers] = values.text.split(",").map(Number);
const t5 = join(values.out, `t5xxl-${t5Layers}-Q4_0.gguf`);
await mkdir(parts, { recursive: true });
if (!existsSync(transformer)) await writeGguf(transformer, "flux", originalFluxTensors(config));
if (!existsSync(t5)) await writeGguf(t5, "t5encoder", weightsOf(t5Encoder(t5Config())));
if (!existsSync(join(parts, "model_index.json"))) await writeParts();

/**
 * A GGUF file of random matrices in Q4_0, and vectors in float32.
 * @param {string} path
 * @param {string} architecture
 * @param {readonly { name: string, shape: readonly number[] }[]} tensors
 */
async function writeGguf(path, architecture, tensors) {
  const number = (value) => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(BigInt(value));
    return bytes;
  };
  const int = (value) => number(value).subarray(0, 4);
  const text = (value) => Buffer.concat([number(Buffer.byteLength(value)), Buffer.from(value)]);
  const isBlocks = ({ shape }) => shape.length === 2;
  const bytesOf = (tensor) => {
    const elements = tensor.shape.reduce((a, b) => a * b, 1);
    return isBlocks(tensor) ? (elements / 32) * 18 : elements * 4;
  };
  const aligned = (bytes) => Math.ceil(bytes / 32) * 32;
  const header = [Buffer.from("GGUF"), int(3), number(tensors.length), number(1)];
  header.push(text("general.architecture"), int(8), text(architecture));
  let offset = 0;
  for (const tensor of tensors) {
    const { name, shape } = tensor;
    header.push(
      text(name),
      int(shape.length),
      ...shape.toReversed().map(number),
      int(isBlocks(tensor) ? 2 : 0),
      number(offset),
    );
    offset += aligned(bytesOf(tensor));
  }
  const file = await open(`${path}.tmp`, "w");
  const start = Buffer.concat(header);
  await file.write(Buffer.concat([start, Buffer.alloc(aligned(start.length) - start.length)]));
  const nibbles = new Uint8Array(18 * 2 ** 18);
  for (let i = 0; i < nibbles.length; i++) nibbles[i] = Math.random() * 256;
  const vector = new TorchGenerator(1).randn([2 ** 16]);
  for (const [i, tensor] of tensors.entries()) {
    const left = bytesOf(tensor);
    const chunk = isBlocks(tensor)
      ? scaled(nibbles, tensor.shape[1])
      : new Uint8Array(vector.map((x) => 1 + x / 10).buffer);
    // Each begins elsewhere: ONNX Runtime keeps equal matrices once, and then memory is not what it is for real ones.
    for (let done = 0, at = isBlocks(tensor) ? 18 * ((i * 7919) % 2 ** 14) : 0; done < left; at = 0) {
      const part = chunk.subarray(at, Math.min(chunk.length, at + left - done));
      await file.write(part);
      done += part.length;
    }
    await file.write(new Uint8Array(aligned(left) - left));
  }
  await file.close();
  await rename(`${path}.tmp`, path);
}

/** Blocks of Q4_0 with a scale that gives weights of a variance of one over the inputs. */
function scaled(nibbles, fanIn) {
  const blocks = Buffer.from(nibbles);
  const scale = halfBits(1 / (4.6 * Math.sqrt(fanIn)));
  for (let at = 0; at < blocks.length; at += 18) blocks.writeUInt16LE(scale, at);
  return blocks;
}

/** Of a positive number that is normal in float16. */
function halfBits(x) {
  const exponent = Math.floor(Math.log2(x));
  return ((exponent + 15) << 10) | Math.round((x / 2 ** exponent - 1) * 1024);
}

/** Everything but the transformer, as a folder in diffusers' layout. */
async function writeParts() {
  const tokenizers = fileURLToPath(new URL("../tests/goldens/flux-pipeline/dev/", import.meta.url));
  for (const name of ["tokenizer", "tokenizer_2"])
    await cp(join(tokenizers, name), join(parts, name), { recursive: true });
  const clip = {
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: clipLayers,
    num_attention_heads: 12,
    eos_token_id: 595,
  };
  const vae = {
    ...{ block_out_channels: [128, 256, 512, 512], up_block_types: new Array(4).fill("UpDecoderBlock2D") },
    ...{ layers_per_block: 2, latent_channels: 16, sample_size: 1024, scaling_factor: 0.3611, shift_factor: 0.1159 },
    ...{ use_quant_conv: false, use_post_quant_conv: false },
  };
  const models = {
    vae: { config: vae, weights: weightsOf(autoencoderKLDecoder(autoencoderKLConfigFromJson(vae))) },
    text_encoder: {
      config: clip,
      weights: weightsOf(clipTextEncoder(clipTextConfigFromJson(clip), ["pooled"])).map(({ name, shape }) => ({
        name: `text_model.${name}`, // as files have it
        shape,
      })),
    },
  };
  const pair = (name) => ["diffusers", name];
  const index = {
    _class_name: "FluxPipeline",
    ...Object.fromEntries(
      [...Object.keys(models), "tokenizer", "tokenizer_2", "scheduler"].map((name) => [name, pair(name)]),
    ),
  };
  const scheduler = { _class_name: "FlowMatchEulerDiscreteScheduler" };
  await writeRandomPipeline(parts, { index, scheduler, models }, new TorchGenerator(0).randn([1 << 20]));
}

function t5Config() {
  const sizes = { d_model: 4096, d_ff: 10_240, num_heads: 64, num_layers: t5Layers };
  return t5ConfigFromJson({ ...sizes, feed_forward_proj: "gated-gelu" });
}

/** Names and shapes of a network's weights. */
function weightsOf(graph) {
  return graph.reachable().weights.map(({ name, shape }) => ({ name, shape }));
}

const start = performance.now();
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
const pipeline = await DiffusionPipeline.fromPretrained(transformer, {
  ...{ vae: parts, textEncoder: parts, textEncoder2: t5, tokenizer: parts, threads },
  onConvert: ({ tensorsDone, tensorsTotal }) => {
    if (tensorsDone % 50 === 0) console.error(`repacked ${tensorsDone} of ${tensorsTotal} tensors`);
  },
});
console.log(
  `FLUX.1-${values.model}, ${size}x${size}, ${threads} threads; opened after ${seconds(performance.now() - start)}`,
);
for (const granularity of values.levels.split(",")) {
  const { report } = await pipeline.generate({
    ...{ prompt: "a fox in the snow", seed: 1, height: size, width: size, numInferenceSteps, maxSequenceLength },
    outputType: "latent",
    cache: {
      method: "taylorSeer",
      order: 1,
      interval: 50,
      firstEnhance: Math.max(2, numInferenceSteps - 1),
      granularity,
      measure: false,
    },
    onStep: ({ step, kind, durationMs, flops }) =>
      console.log(
        `${granularity}: step ${step}, ${kind}: ${seconds(durationMs)}, ${(flops / durationMs / 1e6).toFixed(0)} GFLOP/s; ` +
          `peak ${(megabytes("VmHWM") / 1000).toFixed(2)} GB`,
      ),
  });
  const { encodingMs, conditioningMs, stateBytes } = report;
  console.log(
    `${granularity}: prompt ${seconds(encodingMs)}, conditioning ${seconds(conditioningMs)}, state ${(stateBytes / 1e6).toFixed(1)} MB`,
  );
}
await pipeline.close();
