import { describe, expect, test } from "vitest";
import { countFlops, type Graph, nodeFlops, productsAnd } from "../../src/graph/index.js";
import {
  autoencoderKLConfigFromJson,
  autoencoderKLDecoder,
  isDecoderTensor,
  latentStride,
  withCurrentNames,
} from "../../src/models/autoencoder-kl.js";
import { autoencoderKLEncoder } from "../../src/models/autoencoder-kl-encoder.js";
import { LatentDecoder } from "../../src/pipelines/decoder.js";
import type { Engine } from "../../src/runtime/engine.js";
import { Sessions } from "../../src/runtime/sessions.js";
import { Checkpoint, type TensorInfo } from "../../src/weights/index.js";
import { engineForTests, evaluate, numbers, relativeError, weightsOf } from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";
import { openAutoencoder, openDecoded } from "./autoencoders.js";

const engine = engineForTests();

describe("equals diffusers", () => {
  test.each(["sd", "flux", "options", "old-names"])("%s", async (name) => {
    const { config, checkpoint } = await openAutoencoder(name);
    const golden = await openDecoded(name);
    const latent = await golden("latent");
    const weights = weightsOf(withCurrentNames(checkpoint));
    const { image } = await evaluate(engine, autoencoderKLDecoder(config), { latent }, weights);
    const wanted = await golden("image");
    expect(image?.dims).toEqual(wanted.dims);
    expect(relativeError(numbers(image), numbers(wanted))).toBeLessThan(1e-5);
  });

  test("attention weights kept as convolutions of one pixel give the same image", async () => {
    const { config, checkpoint } = await openAutoencoder("old-names");
    const golden = await openDecoded("old-names");
    const asConvolutions = checkpoint
      .tensors()
      .map((tensor) =>
        /\.(query|key|value|proj_attn)\.weight$/.test(tensor.name)
          ? { ...tensor, shape: [...tensor.shape, 1, 1] }
          : tensor,
      );
    expect(asConvolutions.filter(({ shape }) => shape.at(-1) === 1 && shape[0] === 8)).toHaveLength(4);
    const weights = weightsOf(withCurrentNames(Checkpoint.fromTensors("old", asConvolutions)));
    const graph = autoencoderKLDecoder(config);
    const { image } = await evaluate(engine, graph, { latent: await golden("latent") }, weights);
    expect(relativeError(numbers(image), numbers(await golden("image")))).toBeLessThan(1e-5);
  });
});

test.each(["sd", "encoder"])("the encoder of %s equals diffusers'", async (name) => {
  const { config, checkpoint } = await openAutoencoder(name);
  const golden = await openDecoded(name, "encoded");
  const graph = autoencoderKLEncoder(config);
  const outputs = await evaluate(engine, graph, { image: await golden("image") }, weightsOf(checkpoint));
  for (const output of ["mean", "logvar"]) {
    const wanted = await golden(output);
    expect(outputs[output]?.dims).toEqual(wanted.dims);
    expect(relativeError(numbers(outputs[output]), numbers(wanted))).toBeLessThan(1e-5);
  }
  const own = checkpoint.names().filter((tensor) => !isDecoderTensor(tensor));
  expect(own.sort()).toEqual(
    graph
      .reachable()
      .weights.map((weight) => weight.name)
      .sort(),
  );
});

test.each([
  [512, "1.117", "2.515"],
  [1024, "4.879", "10.47"],
])("Stable Diffusion's at %i pixels: products of %s T to encode and %s T to decode", (pixels, encode, decode) => {
  const config = autoencoderKLConfigFromJson({
    ...{ block_out_channels: [128, 256, 512, 512], layers_per_block: 2, up_block_types: up(4) },
  });
  const sizes = { batch: 1, height: pixels / 8, width: pixels / 8 };
  const tera = (graph: Graph): string => {
    const { nodes } = graph.reachable();
    return (nodes.reduce((sum, node) => sum + nodeFlops(node, sizes, productsAnd({})), 0) / 1e12).toFixed(3);
  };
  expect(tera(autoencoderKLEncoder(config))).toBe(encode);
  expect(Number(tera(autoencoderKLDecoder(config))).toPrecision(4)).toBe(decode);
});

describe("a checkpoint that is not the decoder's", () => {
  const config = autoencoderKLConfigFromJson({ block_out_channels: [4, 8], norm_num_groups: 2, up_block_types: up(2) });
  const shapes = autoencoderKLDecoder(config).reachable().weights;
  const tensor = (name: string, shape: readonly number[], file = "/w/f.safetensors"): TensorInfo => ({
    name,
    shape,
    dtype: "float32",
    file,
    offset: 0,
    byteLength: 4 * shape.reduce((a, b) => a * b, 1),
  });
  const tensors = (): TensorInfo[] => shapes.map(({ name, shape }) => tensor(name, shape as number[]));
  const open = (list: TensorInfo[]) =>
    new LatentDecoder(config, Checkpoint.fromTensors("f.safetensors", list), new Sessions({} as Engine, 0));

  test("an encoder's tensors are surplus that may be there, others are named with their shape", async () => {
    const encoder = [tensor("encoder.conv_in.weight", [4, 3, 3, 3]), tensor("quant_conv.bias", [8])];
    expect(() => open([...tensors(), ...encoder])).not.toThrow();
    const surplus = tensor("decoder.up_blocks.2.extra", [5, 7]);
    expect(await femoError("E_WEIGHT", () => open([...tensors(), surplus]))).toContain(
      '"decoder.up_blocks.2.extra" [5, 7]',
    );
  });

  test.each(shapes.map(({ name, shape }) => ({ name, shape })))(
    "$name missing or misshapen",
    async ({ name, shape }) => {
      const others = tensors().filter((known) => known.name !== name);
      expect(await femoError("E_WEIGHT", () => open(others))).toContain(`"${name}" [${shape.join(", ")}]`);
      const message = await femoError("E_WEIGHT", () => open([...others, tensor(name, [3, ...(shape as number[])])]));
      expect(message).toContain(`"${name}": expected [${shape.join(", ")}], found [3, ${shape.join(", ")}]`);
    },
  );

  test("a tensor by its old and its new name is refused", async () => {
    const twice = tensor("decoder.mid_block.attentions.0.query.weight", [8, 8]);
    expect(await femoError("E_WEIGHT", () => open([...tensors(), twice]))).toContain("attentions.0.to_q.weight");
  });
});

/** The published autoencoders, as far as they differ: Stable Diffusion's, DiT's and SDXL's, and FLUX's. */
const published = { block_out_channels: [128, 256, 512, 512], up_block_types: up(4), layers_per_block: 2 };

describe("full size, without weights", () => {
  test.each([
    ["Stable Diffusion", { ...published, latent_channels: 4 }, 49_490_199],
    ["FLUX", { ...published, latent_channels: 16, use_post_quant_conv: false }, 49_545_475],
  ])("%s: the decoder has as many parameters as in diffusers", (_, json, parameters) => {
    const { weights } = autoencoderKLDecoder(autoencoderKLConfigFromJson(json)).reachable();
    const count = weights.reduce((sum, { shape }) => sum + shape.reduce<number>((a, b) => a * Number(b), 1), 0);
    expect(count).toBe(parameters);
  });

  test("operations grow with the area, and attention with its square", () => {
    const graph = (attention: boolean) =>
      autoencoderKLDecoder(autoencoderKLConfigFromJson({ ...published, mid_block_add_attention: attention }));
    const flops = (attention: boolean, height: number, width: number): number =>
      countFlops(graph(attention), { batch: 1, height, width });
    expect(flops(false, 32, 64)).toBe(2 * flops(false, 32, 32));
    // Of attention, scores and values (512 wide) and the softmax; its norm and four products grow with the area.
    const pairs = (tokens: number): number => tokens ** 2 * (4 * 512 + 5);
    const perArea = (side: number): number => flops(true, side, side) - flops(false, side, side) - pairs(side * side);
    expect(perArea(64)).toBe(4 * perArea(32));
  });
});

describe("configs", () => {
  test("what is left out has diffusers' defaults", () => {
    expect(autoencoderKLConfigFromJson({})).toEqual({
      latentChannels: 4,
      inChannels: 3,
      outChannels: 3,
      blockOutChannels: [64],
      layersPerBlock: 1,
      normNumGroups: 32,
      actFn: "silu",
      sampleSize: 32,
      useQuantConv: true,
      usePostQuantConv: true,
      midBlockAddAttention: true,
      latentScale: [1 / 0.18215],
      latentShift: [0],
    });
  });

  test("scale and shift are one number or one for each channel", () => {
    const flux = autoencoderKLConfigFromJson({ scaling_factor: 0.25, shift_factor: 0.1 });
    expect([flux.latentScale, flux.latentShift]).toEqual([[4], [0.1]]);
    const each = { latent_channels: 2, scaling_factor: 0.5, latents_mean: [1, -2], latents_std: [3, 4] };
    const { latentScale, latentShift } = autoencoderKLConfigFromJson(each);
    expect([latentScale, latentShift]).toEqual([
      [6, 8],
      [1, -2],
    ]);
  });

  test("stride, tile size and activation", () => {
    const config = autoencoderKLConfigFromJson({ ...published, sample_size: [256, 512], act_fn: "swish" });
    expect([latentStride(config), config.sampleSize, config.actFn]).toEqual([8, 256, "silu"]);
  });

  test.each([
    ["latent_channels", { latent_channels: 0 }],
    ["latent_channels", { latent_channels: 2.5 }],
    ["out_channels", { out_channels: null }],
    ["block_out_channels", { block_out_channels: [] }],
    ["block_out_channels", { block_out_channels: 64 }],
    ["block_out_channels", { block_out_channels: Array(40).fill(32), up_block_types: up(40) }],
    ["up_block_types", { up_block_types: ["AttnUpDecoderBlock2D"] }],
    ["up_block_types", { block_out_channels: [32, 64] }],
    ["layers_per_block", { layers_per_block: 1e9 }],
    ["norm_num_groups", { norm_num_groups: 48 }],
    ["norm_num_groups", { norm_num_groups: -32 }],
    ["act_fn", { act_fn: "tanh" }],
    ["sample_size", { sample_size: [32] }],
    ["use_post_quant_conv", { use_post_quant_conv: 1 }],
    ["mid_block_add_attention", { mid_block_add_attention: "yes" }],
    ["scaling_factor", { scaling_factor: 0 }],
    ["scaling_factor", { scaling_factor: Number.NaN }],
    ["shift_factor", { shift_factor: "0" }],
    ["latents_mean", { latents_mean: [0, 0, 0], latents_std: [1, 1, 1, 1] }],
    ["latents_std", { latents_mean: [0, 0, 0, 0], latents_std: [1] }],
    ["latents_std", { latents_mean: [0, 0, 0, 0] }],
    ["(root)", null],
    ["(root)", "{}"],
  ])("%s: %j is refused", async (field, json) => {
    const message = await femoError("E_CONFIG", () => autoencoderKLConfigFromJson(json, "here/config.json"));
    expect(message).toContain("here/config.json");
    expect(message).toContain(field);
  });
});

function up(blocks: number): string[] {
  return Array(blocks).fill("UpDecoderBlock2D");
}
