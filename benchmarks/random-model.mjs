/**
 * Writes a class-to-image pipeline of real shapes with random weights, for measuring speed and memory where no
 * checkpoint is at hand: DiT-XL/2 at 256x256 and Stable Diffusion's autoencoder, 2.9 GB in float32.
 *
 *     npm run build && node benchmarks/random-model.mjs --out DIR [--size 256] [--layers 28]
 *     npm run bench -- --model DIR --rounds 1
 *
 * The same options give the same bytes. What it draws is noise.
 */
import { parseArgs } from "node:util";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder } from "../dist/models/autoencoder-kl.js";
import { dit, ditConfigFromJson } from "../dist/models/dit.js";
import { TorchGenerator } from "../dist/samplers/index.js";
import { traceCut } from "../dist/tracing/index.js";
import { writeRandomPipeline } from "./random-pipeline.mjs";

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    size: { type: "string", default: "256" },
    layers: { type: "string", default: "28" },
  },
});
if (!values.out) throw new Error("--out DIR is needed");

const transformer = {
  _class_name: "DiTTransformer2DModel",
  in_channels: 4,
  out_channels: 8,
  num_layers: Number(values.layers),
  sample_size: Number(values.size) / 8,
};
const vae = {
  _class_name: "AutoencoderKL",
  block_out_channels: [128, 256, 512, 512],
  up_block_types: new Array(4).fill("UpDecoderBlock2D"),
  layers_per_block: 2,
  latent_channels: 4,
  sample_size: Number(values.size),
};
const scheduler = { _class_name: "DDIMScheduler", clip_sample: false, set_alpha_to_one: false, steps_offset: 1 };
const index = {
  _class_name: "DiTPipeline",
  scheduler: ["diffusers", "DDIMScheduler"],
  transformer: ["diffusers", "DiTTransformer2DModel"],
  vae: ["diffusers", "AutoencoderKL"],
};

/**
 * @param {import("../dist/graph/index.js").Graph} graph
 * @returns the tensors that it reads
 */
const weightsOf = (graph) =>
  graph.reachable().weights.map(({ name, shape }) => ({ name, shape: /** @type {number[]} */ (shape) }));

const models = {
  transformer: {
    config: transformer,
    weights: weightsOf(traceCut(dit(ditConfigFromJson(transformer)), { hoisted: "inline" }).graph),
  },
  vae: { config: vae, weights: weightsOf(autoencoderKLDecoder(autoencoderKLConfigFromJson(vae))) },
};
await writeRandomPipeline(values.out, { index, scheduler, models }, new TorchGenerator(0).randn([1 << 22]));
