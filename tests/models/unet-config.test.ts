import { describe, expect, test } from "vitest";
import { unet } from "../../src/models/unet.js";
import { unetConfigFromJson } from "../../src/models/unet-config.js";
import { femoError } from "../weights/helpers.js";

test("what is left out has diffusers' defaults", () => {
  const attends = { heads: 8, depth: 1 };
  const block = (channels: number, layers: number, cross = true) => ({
    channels,
    layers: new Array(layers).fill(cross ? attends : undefined),
  });
  expect(unetConfigFromJson({})).toEqual({
    inChannels: 4,
    outChannels: 4,
    sampleSize: undefined,
    downBlocks: [block(320, 2), block(640, 2), block(1280, 2), block(1280, 2, false)],
    midBlock: { transformer: attends },
    upBlocks: [block(1280, 3, false), block(1280, 3), block(640, 3), block(320, 3)],
    normNumGroups: 32,
    normEps: 1e-5,
    crossAttentionDim: 1280,
    useLinearProjection: false,
    flipSinToCos: true,
    freqShift: 0,
    timeCondProjDim: undefined,
    addition: undefined,
  });
});

test("what touches training, or only how it is computed, is ignored", () => {
  const training = { decay: 0.99, inv_gamma: 1, optimization_step: 3, dropout: 0.1, upcast_attention: true };
  expect(unetConfigFromJson({ ...training, addition_embed_type_num_heads: 64 })).toEqual(unetConfigFromJson({}));
});

test("the numbers beside the pooled text are six, and five of the refiner", () => {
  const added = (width: number, channels = 256) =>
    unetConfigFromJson({
      addition_embed_type: "text_time",
      addition_time_embed_dim: channels,
      projection_class_embeddings_input_dim: width,
    }).addition;
  expect(added(2816)).toEqual({ timeEmbedDim: 256, timeIds: 6, pooledProjectionDim: 1280 });
  expect(added(2560)).toEqual({ timeEmbedDim: 256, timeIds: 5, pooledProjectionDim: 1280 });
  expect(added(50, 8)).toEqual({ timeEmbedDim: 8, timeIds: 6, pooledProjectionDim: 2 });
});

test("depths of the up blocks are read as they are written, from the deepest", () => {
  const { upBlocks, midBlock } = unetConfigFromJson({
    transformer_layers_per_block: [[0, 0], [2, 1], 3, 4],
    reverse_transformer_layers_per_block: [5, [1, 2, 3], 7, [9, 8, 6]],
  });
  expect(upBlocks.map(({ layers }) => layers.map((layer) => layer?.depth))).toEqual([
    [undefined, undefined, undefined],
    [1, 2, 3],
    [7, 7, 7],
    [9, 8, 6],
  ]);
  expect(midBlock?.transformer?.depth).toBe(4);
});

describe("refused, with what was found and what is allowed", () => {
  const four = [1, 1, 1, 1];
  test.each<[field: string, json: unknown, found?: string]>([
    ["in_channels", { in_channels: 0 }],
    ["block_out_channels", { block_out_channels: [] }],
    ["block_out_channels", { block_out_channels: [320, 640, 1280, 100] }, "100"],
    ["layers_per_block", { layers_per_block: [2, 2] }, "found 2"],
    ["layers_per_block", { layers_per_block: 1e9 }],
    ["norm_num_groups", { norm_num_groups: null }],
    ["norm_eps", { norm_eps: 0 }],
    ["cross_attention_dim", { cross_attention_dim: [768, 768] }],
    ["transformer_layers_per_block", { transformer_layers_per_block: [1, 1] }, "found 2"],
    ["transformer_layers_per_block", { transformer_layers_per_block: -1 }],
    [
      "transformer_layers_per_block",
      { transformer_layers_per_block: [[1], 1, 1, 1], reverse_transformer_layers_per_block: four },
      "[1]",
    ],
    ["reverse_transformer_layers_per_block", { transformer_layers_per_block: [[1, 1], 1, 1, 1] }],
    ["reverse_transformer_layers_per_block", { reverse_transformer_layers_per_block: [1, [1, 1], 1, 1] }, "[1,1]"],
    ["attention_head_dim", { attention_head_dim: 7 }, "7 heads"],
    ["down_block_types", { down_block_types: ["DownBlock2D"] }, "found 1"],
    [
      "down_block_types",
      { down_block_types: ["AttnDownBlock2D", ...new Array(3).fill("DownBlock2D")] },
      "AttnDownBlock2D",
    ],
    ["up_block_types", { up_block_types: new Array(4).fill("ResnetUpsampleBlock2D") }, "ResnetUpsampleBlock2D"],
    ["mid_block_type", { mid_block_type: "UNetMidBlock2DSimpleCrossAttn" }, "SimpleCrossAttn"],
    ["addition_embed_type", { addition_embed_type: "image" }, '"image"'],
    ["addition_time_embed_dim", { addition_embed_type: "text_time", projection_class_embeddings_input_dim: 9 }],
    [
      "projection_class_embeddings_input_dim",
      { addition_embed_type: "text_time", addition_time_embed_dim: 4, projection_class_embeddings_input_dim: 24 },
      "24",
    ],
    ["class_embed_type", { class_embed_type: "timestep" }, '"timestep"'],
    ["num_class_embeds", { num_class_embeds: 10 }, "10"],
    ["encoder_hid_dim_type", { encoder_hid_dim_type: "text_proj" }, '"text_proj"'],
    ["dual_cross_attention", { dual_cross_attention: true }, "true"],
    ["only_cross_attention", { only_cross_attention: [true, false] }, "[true,false]"],
    ["resnet_time_scale_shift", { resnet_time_scale_shift: "scale_shift" }, '"scale_shift"'],
    ["conv_in_kernel", { conv_in_kernel: 5 }, "5"],
    ["num_attention_heads", { num_attention_heads: 8 }, "8"],
    ["act_fn", { act_fn: "mish" }, '"mish"'],
    ["time_embedding_type", { time_embedding_type: "fourier" }, '"fourier"'],
    ["(root)", null],
  ])("%s: %j", async (field, json, found = "") => {
    const message = await femoError("E_CONFIG", () => unetConfigFromJson(json, "here/config.json"));
    expect(message).toContain("here/config.json");
    expect(message).toContain(field);
    expect(message).toContain(found);
  });

  test("eight channels in, as models have that edit by instruction", async () => {
    const config = unetConfigFromJson({ in_channels: 8 });
    expect(await femoError("E_CONFIG", () => unet(config))).toContain(
      "expected 4, as out_channels, or 9 for inpainting, found 8",
    );
  });
});
