/**
 * Writes a class-to-image pipeline of real shapes with random weights, for measuring speed and memory where no
 * checkpoint is at hand: DiT-XL/2 at 256x256 and Stable Diffusion's autoencoder, 2.9 GB in float32.
 *
 *     npm run build && node benchmarks/random-model.mjs --out DIR [--size 256] [--layers 28]
 *     npm run bench -- --model DIR --rounds 1
 *
 * The same options give the same bytes. What it draws is noise.
 */
import { mkdirSync } from "node:fs";
import { open, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { traceWhole } from "../dist/graph/index.js";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder } from "../dist/models/autoencoder-kl.js";
import { dit, ditConfigFromJson } from "../dist/models/dit.js";
import { TorchGenerator } from "../dist/samplers/index.js";

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

/** A stock of normal numbers, from which every tensor takes a part at another place. */
const stock = new TorchGenerator(0).randn([1 << 22]);

async function writeSafetensors(path, weights) {
  let offset = 0;
  const header = {};
  for (const { name, shape } of weights) {
    const bytes = 4 * shape.reduce((a, b) => a * b, 1);
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const file = await open(`${path}.tmp`, "w");
  await file.write(Buffer.concat([length, text]));
  for (const [i, { shape }] of weights.entries()) {
    const size = shape.reduce((a, b) => a * b, 1);
    const fanIn = shape.length > 1 ? size / shape[0] : 100;
    const scaled = stock.map((x) => x / Math.sqrt(fanIn));
    for (let done = 0, at = (i * 7919) % stock.length; done < size; at = 0) {
      const part = scaled.subarray(at, Math.min(stock.length, at + size - done));
      await file.write(Buffer.from(part.buffer, part.byteOffset, part.byteLength));
      done += part.length;
    }
  }
  await file.close();
  await rename(`${path}.tmp`, path);
}

const json = (value) => `${JSON.stringify(value, null, 2)}\n`;
for (const folder of ["transformer", "vae", "scheduler"]) mkdirSync(join(values.out, folder), { recursive: true });
await writeFile(join(values.out, "transformer/config.json"), json(transformer));
await writeFile(join(values.out, "vae/config.json"), json(vae));
await writeFile(join(values.out, "scheduler/scheduler_config.json"), json(scheduler));
const graphs = {
  transformer: traceWhole(dit(ditConfigFromJson(transformer))).graph,
  vae: autoencoderKLDecoder(autoencoderKLConfigFromJson(vae)),
};
for (const [component, graph] of Object.entries(graphs)) {
  const { weights } = graph.reachable();
  await writeSafetensors(join(values.out, component, "diffusion_pytorch_model.safetensors"), weights);
}
await writeFile(join(values.out, "model_index.json"), json(index)); // last: a folder with it is whole
