import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import type { Graph } from "../../src/graph/index.js";
import { autoencoderKLConfigFromJson, autoencoderKLDecoder } from "../../src/models/autoencoder-kl.js";
import { autoencoderKLEncoder } from "../../src/models/autoencoder-kl-encoder.js";
import { clipTextConfigFromJson, clipTextEncoder } from "../../src/models/clip-text.js";
import { dit, ditConfigFromJson, ditXL2 } from "../../src/models/dit.js";
import { flux } from "../../src/models/flux.js";
import { fluxDev } from "../../src/models/flux-config.js";
import { t5ConfigFromJson, t5Encoder } from "../../src/models/t5.js";
import { unet } from "../../src/models/unet.js";
import { sdxlBase, unetConfigFromJson } from "../../src/models/unet-config.js";
import { type Model, traceCut, traceFeatureKernel } from "../../src/tracing/index.js";
import { graphHash } from "./canonical.js";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const GOLDEN = here("../goldens/graphs.json");

const embedded = ditConfigFromJson(
  JSON.parse(readFileSync(here("../../models/avatars-dit/transformer/config.json"), "utf8")),
);
const stableDiffusion = autoencoderKLConfigFromJson({
  block_out_channels: [128, 256, 512, 512],
  layers_per_block: 2,
  up_block_types: new Array(4).fill("UpDecoderBlock2D"),
  down_block_types: new Array(4).fill("DownEncoderBlock2D"),
});
const clipL = clipTextConfigFromJson({ hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12 });
const clipBigG = clipTextConfigFromJson({
  hidden_size: 1280,
  intermediate_size: 5120,
  projection_dim: 1280,
  num_hidden_layers: 32,
  num_attention_heads: 20,
  hidden_act: "gelu",
});
const t5Xxl = t5ConfigFromJson({
  d_model: 4096,
  d_ff: 10_240,
  num_layers: 24,
  num_heads: 64,
  feed_forward_proj: "gated-gelu",
});

/** Every graph of a model: with its conditioning, without, and at each level a full and a forecast step. */
function graphsOf(model: Model): Record<string, Graph> {
  const state = { history: 1, averages: 2 };
  return {
    whole: traceCut(model, { hoisted: "inline" }).graph,
    conditioning: traceCut(model, { hoisted: "pair" }).graph,
    "conditioning by condition": traceCut(model, { hoisted: "condition" }).graph,
    step: traceCut(model, {}).graph,
    ...Object.fromEntries(
      model.levels.flatMap((level) => [
        [`full ${level}`, traceCut(model, { capture: { level } }).graph],
        [`forecast ${level}`, traceCut(model, { forecast: { level }, state }).graph],
      ]),
    ),
  };
}

const models: Record<string, () => Record<string, Graph>> = {
  "DiT-XL/2": () => graphsOf(dit(ditXL2)),
  "avatars-dit": () => graphsOf(dit(embedded)),
  "FLUX.1-dev": () => graphsOf(flux(fluxDev)),
  "Stable Diffusion 1.5": () => graphsOf(unet(unetConfigFromJson({ cross_attention_dim: 768 }))),
  "Stable Diffusion XL": () => graphsOf(unet(sdxlBase)),
  "text encoders": () => ({
    "CLIP-L": clipTextEncoder(clipL, ["pooled", "hidden_states[-2]"]),
    "CLIP bigG": clipTextEncoder(clipBigG, ["projected", "hidden_states[-2]"]),
    "T5-XXL": t5Encoder(t5Xxl),
  }),
  autoencoder: () => ({
    decoder: autoencoderKLDecoder(stableDiffusion),
    encoder: autoencoderKLEncoder(stableDiffusion),
  }),
  kernels: () => ({
    measure: traceFeatureKernel({ history: 2, averages: 2, measure: true, update: false }),
    update: traceFeatureKernel({ history: 2, averages: 2, measure: false, update: true }),
    both: traceFeatureKernel({ history: 3, averages: 1, measure: true, update: true }),
  }),
};

// A change of a hash is a change of what is computed: say why in the commit. UPDATE_GRAPHS=1 writes them anew.
test.each(Object.keys(models))("the graphs of %s are what they were", (name) => {
  const found = Object.fromEntries(
    Object.entries(models[name]?.() ?? {}).map(([kind, graph]) => [kind, graphHash(graph)]),
  );
  const golden = JSON.parse(readFileSync(GOLDEN, "utf8"));
  if (process.env.UPDATE_GRAPHS === "1") {
    writeFileSync(GOLDEN, `${JSON.stringify({ ...golden, [name]: found }, null, 2)}\n`);
    return;
  }
  expect(found).toEqual(golden[name]);
});
