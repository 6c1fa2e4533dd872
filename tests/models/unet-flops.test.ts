import { describe, expect, test } from "vitest";
import { type Bindings, bindDim, nodeFlops, productsAnd, sizeOf } from "../../src/graph/index.js";
import { unet } from "../../src/models/unet.js";
import { unetConfigFromJson } from "../../src/models/unet-config.js";
import { type Cut, type Model, traceCut } from "../../src/tracing/index.js";
import { weightNames } from "./unets.js";

const [X, D] = [true, false];
const types = (...cross: boolean[]) => ({
  down_block_types: cross.map((x) => (x ? "CrossAttnDownBlock2D" : "DownBlock2D")),
  up_block_types: cross.toReversed().map((x) => (x ? "CrossAttnUpBlock2D" : "UpBlock2D")),
});
const textTime = (width: number) => ({
  addition_embed_type: "text_time",
  addition_time_embed_dim: 256,
  projection_class_embeddings_input_dim: width,
  use_linear_projection: true,
});
const ofSdxl = {
  ...textTime(2816),
  ...types(D, X, X),
  block_out_channels: [320, 640, 1280],
  attention_head_dim: [5, 10, 20],
  cross_attention_dim: 2048,
};
const sd21 = { cross_attention_dim: 1024, attention_head_dim: [5, 10, 20, 20], use_linear_projection: true };
const plainMiddle = { mid_block_type: "UNetMidBlock2D" };

/** Configs as published. */
const published = {
  "SD 1.5": { cross_attention_dim: 768 },
  "SD 1.5 inpaint": { cross_attention_dim: 768, in_channels: 9 },
  "SD 2.1": sd21,
  SDXL: { ...ofSdxl, transformer_layers_per_block: [1, 2, 10] },
  refiner: {
    ...textTime(2560),
    ...types(D, X, X, D),
    block_out_channels: [384, 768, 1536, 1536],
    attention_head_dim: [6, 12, 24, 24],
    transformer_layers_per_block: 4,
  },
  "SSD-1B": {
    ...{ ...ofSdxl, ...plainMiddle },
    transformer_layers_per_block: [
      [0, 0],
      [2, 2],
      [4, 4],
    ],
    reverse_transformer_layers_per_block: [
      [4, 4, 10],
      [2, 1, 1],
      [0, 0, 0],
    ],
  },
  Vega: {
    ...{ ...ofSdxl, ...plainMiddle },
    transformer_layers_per_block: [
      [0, 0],
      [1, 1],
      [2, 2],
    ],
    reverse_transformer_layers_per_block: [[2, 2, 2], [1, 1, 1], 0],
  },
} as const;
const open = (name: keyof typeof published): Model => unet(unetConfigFromJson(published[name]));

const inline: Cut = { hoisted: "inline" };
const products = productsAnd({});
const nodesOf = (model: Model, cut: Cut) => traceCut(model, { ...cut, hoisted: "inline" }).graph.reachable().nodes;
const at = (pixels: number): Bindings => ({
  ...{ height: pixels / 8, width: pixels / 8, text: 77 },
  ...{ batch: 1, pairs: 1, conditions: 1, features: 1 },
});
/** Products of a row, in units of 10⁹; without those that combine what is kept. */
const giga = (model: Model, cut: Cut, pixels: number): number =>
  nodesOf(model, cut)
    .filter(({ parts }) => !parts.some(({ kind }) => kind === "forecast"))
    .reduce((sum, node) => sum + nodeFlops(node, at(pixels), products), 0) / 1e9;
const deep = (j: number): Cut => ({ forecast: { sites: [`deep.${j}`] }, state: { history: 1, averages: 0 } });
const parameters = (model: Model, cut: Cut): number =>
  traceCut(model, { ...cut, hoisted: "inline" })
    .graph.reachable()
    .weights.reduce((sum, { shape }) => sum + sizeOf(shape as number[]), 0);

// Counted from published configs in PyTorch.
test.each([
  ["SD 1.5", 686, 859_520_964, 512, "0.803"],
  ["SD 1.5", 686, 859_520_964, 1024, "4.674"],
  ["SD 1.5 inpaint", 686, 859_535_364, 512, "0.803"],
  ["SD 2.1", 686, 865_910_724, 512, "0.804"],
  ["SD 2.1", 686, 865_910_724, 768, "2.149"],
  ["SDXL", 1680, 2_567_463_684, 512, "1.589"],
  ["SDXL", 1680, 2_567_463_684, 1024, "6.761"],
  ["refiner", 1220, 2_259_526_660, 1024, "7.286"],
  ["SSD-1B", 944, 1_331_334_404, 1024, "4.208"],
  ["Vega", 564, 745_225_604, 1024, "2.822"],
] as const)("%s has %s tensors, %i parameters; at %i pixels a row takes %s T", (name, tensors, size, pixels, tera) => {
  const model = open(name);
  expect(weightNames(model, inline).size).toBe(tensors);
  expect(parameters(model, inline)).toBe(size);
  expect((giga(model, inline, pixels) / 1000).toFixed(3)).toBe(tera);
});

describe("SDXL, where DeepCache cuts", () => {
  const model = open("SDXL");
  const [full, half] = [giga(model, inline, 1024), giga(model, inline, 512)];

  test.each([
    [0, 98, ".0145", ".0154", "10.7"],
    [1, 256, ".0378", ".0403", "16.3"],
    [2, 447, ".0661", ".0704", "23.0"],
    [3, 872, ".1289", ".1274", "59.1"],
    [4, 1448, ".2141", ".1985", "120"],
    [5, 2071, ".3062", ".2771", "187"],
    [6, 2956, ".4372", ".4138", "597"],
    [7, 4453, ".6586", ".6444", "1372"],
    [8, 5964, ".8821", ".8771", "2154"],
  ] as const)("deep.%i: %i G, %s of the whole at 1024 and %s at 512, %s M weights", (j, g, share, shareOfHalf, m) => {
    const shallow = giga(model, deep(j), 1024);
    expect(shallow.toFixed(0)).toBe(String(g));
    expect((shallow / full).toFixed(4)).toBe(`0${share}`);
    expect((giga(model, deep(j), 512) / half).toFixed(4)).toBe(`0${shareOfHalf}`);
    expect((parameters(model, deep(j)) / 1e6).toFixed(m.includes(".") ? 1 : 0)).toBe(m);
  });

  test("a shallow graph has no weight of a layer that lies deeper, and all others", () => {
    const all = [...weightNames(model, inline)];
    for (let j = 0; j < 9; j++) {
      // Resolution and place of the last layer that runs, from either end.
      const [block, i] = [Math.floor(j / 3), j % 3];
      const wanted = all.filter((name) => {
        const [, way, found, part, k] = /^(down|up)_blocks\.(\d)\.(\w+)\.(\d)/.exec(name) ?? [];
        if (way === undefined) return !name.startsWith("mid_block");
        const samples = part?.endsWith("samplers");
        if (way === "up") return 3 * (2 - Number(found)) + (samples ? 0 : 2 - Number(k)) <= j;
        return 3 * Number(found) + (samples ? 3 : Number(k) + 1) <= 3 * block + i;
      });
      expect([...weightNames(model, { ...deep(j), ...inline })].sort()).toEqual(wanted.sort());
    }
  });
});

describe("SDXL by its parts", () => {
  const model = open("SDXL");
  const nodes = nodesOf(model, inline);
  /** Products whose weight lies there; attention between them counts with the layer that it is part of. */
  const ofPart = (prefix: string, pixels: number): number =>
    nodes
      .filter(({ inputs, parts }) => {
        const origin = inputs.map((input) => input?.origin).find((from) => from?.kind === "weight");
        const name = origin?.kind === "weight" ? origin.tensor : (parts.at(-1)?.name ?? "");
        return name.startsWith(`${prefix}.`);
      })
      .reduce((sum, node) => sum + nodeFlops(node, at(pixels), products), 0) / 1e9;

  test.each([
    ["conv_in", ".38", ".09"],
    ["down_blocks.0", "128.35", "32.1"],
    ["down_blocks.1", "546.6", "105.65"],
    ["down_blocks.2", "1460.4", "357.1"],
    ["mid_block", "797.3", "195.3"],
    ["up_blocks.0", "2425.4", "594.3"],
    ["up_blocks.1", "1077.0", "222.75"],
    ["up_blocks.2", "325.5", "81.4"],
    ["conv_out", ".38", ".09"],
  ])("%s takes %s G at 1024 and %s at 512", (part, whole, half) => {
    for (const [pixels, wanted] of [
      [1024, whole],
      [512, half],
    ] as const) {
      const digits = wanted.split(".")[1]?.length;
      expect(ofPart(part, pixels).toFixed(digits)).toBe(wanted.replace(/^\./, "0."));
    }
  });

  test.each([
    ["module", 210, 314.6, ".251", ".267"],
    ["transformer", 11, 21.0, ".240", ".255"],
    ["block", 16, 47.2, ".048", ".051"],
    ["stack", 1, 5.2, ".000", ".000"],
    ["output", 1, 0.1, ".000", ".000"],
  ])(
    "forecasts at '%s': %i features, %d M elements, %s of the whole left at 1024 and %s at 512",
    (level, count, m, ...shares) => {
      const cut: Cut = { forecast: { level }, state: { history: 1, averages: 0 } };
      const { forecasts } = traceCut(model, cut);
      expect(forecasts).toHaveLength(count);
      const elements = forecasts.reduce((sum, site) => sum + bindDim(site.elements, at(1024)), 0);
      expect(elements / 1e6).toBeCloseTo(m, 1);
      const left = [1024, 512].map((pixels) => (giga(model, cut, pixels) / giga(model, inline, pixels)).toFixed(3));
      expect(left).toEqual(shares.map((share) => `0${share}`));
    },
  );
});

test.each([
  ["SD 1.5", 512, 0, ".079"],
  ["SD 1.5", 512, 1, ".224"],
  ["SD 1.5", 512, 2, ".380"],
  ["SD 2.1", 768, 1, ".273"],
  ["refiner", 1024, 1, ".051"],
] as const)("%s at %i pixels, cut at deep.%i, takes %s of the whole", (name, pixels, j, share) => {
  const model = open(name);
  expect((giga(model, deep(j), pixels) / giga(model, inline, pixels)).toFixed(3)).toBe(`0${share}`);
});

test("odd sides are halved upwards: what enters the middle of SDXL at 1000 by 1016 pixels", () => {
  const [site] = traceCut(open("SDXL"), { capture: { level: "deep.8" } }).captured;
  const sizes = { ...at(1024), height: 125, width: 127 };
  expect(site?.shape.map((dim) => bindDim(dim, sizes))).toEqual([1, 1280, 32, 32]);
});
