import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { bindDim, bindShape, countFlops, sizeOf } from "../../src/graph/index.js";
import { flux } from "../../src/models/flux.js";
import { fluxConfigFromJson, fluxDev, fluxSchnell } from "../../src/models/flux-config.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { graphNames, traceCut } from "../../src/tracing/index.js";
import { openCheckpoint } from "../../src/weights/index.js";
import {
  engineForTests,
  evaluate,
  floats,
  integers,
  noise,
  numbers,
  relativeError,
  weightsOf,
} from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const newestOnly = { history: 1, averages: 0 };
const size = { rows: 3, columns: 5, text: 4 };
/** Guidance enters as the sinusoids of 3500: half an ulp of a frequency, rounded differently, is 1e-4 of an angle. */
const parity = 3e-5;
const rounding = 2e-6; // of float32, relative to the largest element

async function openTiny(name: string) {
  const folder = fileURLToPath(new URL(`../goldens/flux/${name}`, import.meta.url));
  const config = fluxConfigFromJson(JSON.parse(readFileSync(`${folder}/transformer/config.json`, "utf8")));
  const [checkpoint, golden] = await Promise.all(
    ["transformer/diffusion_pytorch_model.safetensors", "golden.safetensors"].map((file) =>
      openCheckpoint(nodeFolder(folder), file),
    ),
  );
  if (!checkpoint || !golden) throw new Error(folder);
  const tensors: Record<string, HostTensor> = {};
  for (const { name, shape } of golden.tensors()) tensors[name] = floats(shape, await golden.readTensor(name));
  for (const packed of ["sample", "output"]) tensors[packed] = unpacked(tensors[packed] as HostTensor);
  const model = flux(config);
  for (const { name, shape, values } of model.inputs) {
    if (values) tensors[name] = floats(bindShape(shape, size), values(size));
  }
  return { model, checkpoint, weights: weightsOf(checkpoint), tensors };
}

/** Tokens of 2 x 2 pixels, [B, rows columns, 4 C], as the latent image that diffusers packs into them, [B, C, 2 rows, 2 columns]. */
function unpacked({ dims, data }: HostTensor): HostTensor {
  const [batch, , width] = dims as [number, number, number];
  const [channels, height, across] = [width / 4, 2 * size.rows, 2 * size.columns];
  const image = new Float32Array(data.length);
  for (let i = 0; i < image.length; i++) {
    const [x, y] = [i % across, Math.floor(i / across) % height];
    const [channel, row] = [Math.floor(i / (across * height)) % channels, Math.floor(i / (across * height * channels))];
    const token = (row * size.rows + Math.floor(y / 2)) * size.columns + Math.floor(x / 2);
    image[i] = data[token * width + 4 * channel + 2 * (y % 2) + (x % 2)] as number;
  }
  return floats([batch, channels, height, across], image);
}
type Tiny = Awaited<ReturnType<typeof openTiny>>;

type Tensors = Readonly<Record<string, HostTensor>>;
const stepFeeds = ({ sample, rotary_cos, rotary_sin }: Tensors, ...tables: readonly Tensors[]): Tensors =>
  Object.assign({}, ...tables, {
    sample,
    rotary_cos,
    rotary_sin,
    pair: integers([2], [0, 1]),
    condition: integers([2], [0, 1]),
  });

describe.each(["tiny-dev", "tiny-schnell"])("%s", (name) => {
  let tiny: Tiny;
  beforeAll(async () => {
    tiny = await openTiny(name);
  });

  test("equals diffusers", async () => {
    const { model, weights, tensors } = tiny;
    const { output } = await evaluate(engine, traceCut(model, { hoisted: "inline" }).graph, tensors, weights);
    expect(output?.dims).toEqual([2, ...bindShape(model.output, size)]);
    expect(output?.dims).toEqual(tensors.output?.dims);
    expect(relativeError(numbers(output), numbers(tensors.output))).toBeLessThan(parity);
  });

  test("the checkpoint has exactly the model's tensors", () => {
    const needed = traceCut(tiny.model, { hoisted: "inline" }).graph.reachable().weights;
    expect(needed.map(({ name, shape }) => `${name} ${shape}`).sort()).toEqual(
      tiny.checkpoint
        .tensors()
        .map(({ name, shape }) => `${name} ${shape}`)
        .sort(),
    );
  });

  test("conditioning tables and pairs give what the whole graph gives", async () => {
    const { model, weights, tensors } = tiny;
    const tables = await evaluate(engine, traceCut(model, { hoisted: "pair" }).graph, tensors, weights);
    const texts = await evaluate(engine, traceCut(model, { hoisted: "condition" }).graph, tensors, weights);
    const feeds = stepFeeds(tensors, tables, texts);
    const { output } = await evaluate(engine, traceCut(model, {}).graph, feeds, weights);
    expect(relativeError(numbers(output), numbers(tensors.output))).toBeLessThan(parity);
  });

  test("one graph serves every size; the order of the prompt's tokens, all at the origin, does not matter", async () => {
    const { model, weights, tensors } = tiny;
    const { graph } = traceCut(model, { hoisted: "inline" });
    const other = { rows: 2, columns: 4, text: 3 };
    const sized = Object.fromEntries(
      model.inputs.map(({ name, shape, values }, i) => {
        if (values) return [name, floats(bindShape(shape, other), values(other))];
        return [name, shape.length === 0 ? (tensors[name] as HostTensor) : noise([2, ...bindShape(shape, other)], i)];
      }),
    );
    const text = sized.encoder_hidden_states as HostTensor;
    const width = text.dims[2] as number;
    const reversed = floats(
      text.dims,
      numbers(text).map((_, i) => {
        const [row, token, channel] = [Math.floor(i / (3 * width)), Math.floor(i / width) % 3, i % width];
        return text.data[(row * 3 + 2 - token) * width + channel] as number;
      }),
    );
    const { output } = await evaluate(engine, graph, sized, weights);
    const again = await evaluate(engine, graph, { ...sized, encoder_hidden_states: reversed }, weights);
    expect(output?.dims).toEqual([2, ...bindShape(model.output, other)]);
    expect(relativeError(numbers(again.output), numbers(output))).toBeLessThan(rounding);
  });

  test.each(["attention", "module", "block", "stack", "output"])(
    "forecasts at '%s': features kept and given back are features computed",
    async (level) => {
      const { model, weights, tensors } = tiny;
      const tables = await evaluate(engine, traceCut(model, { hoisted: "pair" }).graph, tensors, weights);
      const texts = await evaluate(engine, traceCut(model, { hoisted: "condition" }).graph, tensors, weights);
      const step = stepFeeds(tensors, tables, texts);
      const [full, forecast] = [
        traceCut(model, { capture: { level } }),
        traceCut(model, { forecast: { level }, state: newestOnly }),
      ];
      expect(forecast.forecasts).toEqual(full.captured);
      const count = full.captured.length;
      const old = full.captured.map(
        ({ name, elements }, i) => [graphNames.history(name, 0), noise([2, 1, bindDim(elements, size)], i)] as const,
      );
      const kept = await evaluate(engine, full.graph, step, weights);
      expect(relativeError(numbers(kept.output), numbers(tensors.output))).toBeLessThan(parity);

      const state = full.captured.map(({ name, elements }) => {
        const { dtype, data } = kept[graphNames.feature(name)] as HostTensor;
        return [graphNames.history(name, 0), { dtype, data, dims: [2, 1, bindDim(elements, size)] }] as const;
      });
      const combine = floats([count, 2, 1, 1], new Float32Array(2 * count).fill(1));
      const again = await evaluate(engine, forecast.graph, { ...step, ...Object.fromEntries(state), combine }, weights);
      expect(relativeError(numbers(again.output), numbers(kept.output))).toBeLessThan(rounding);
      const stale = await evaluate(engine, forecast.graph, { ...step, ...Object.fromEntries(old), combine }, weights);
      expect(relativeError(numbers(stale.output), numbers(kept.output))).toBeGreaterThan(1e-2);
    },
  );
});

describe("FLUX.1-dev at 1024x1024, without its weights", () => {
  const model = flux(fluxDev);
  const [D, I, T] = [3072, 4096, 512];

  test("has the 11.9 billion parameters of the published checkpoint", () => {
    const weights = traceCut(model, { hoisted: "inline" }).graph.reachable().weights;
    const parameters = weights.reduce((sum, { shape }) => sum + sizeOf(shape as number[]), 0);
    expect(parameters).toBe(11_901_408_320);
    const schnell = traceCut(flux(fluxSchnell), { hoisted: "inline" }).graph.reachable().weights;
    const guidance = weights.filter(({ name }) => name.includes("guidance_embedder")).map(({ name }) => name);
    expect(schnell.map(({ name }) => name).sort()).toEqual(
      weights
        .map(({ name }) => name)
        .filter((name) => !guidance.includes(name))
        .sort(),
    );
  });

  test("products of a step are 19 double and 38 single blocks of 12 D² a token, attention, and the ends", () => {
    const attention = 2 * (I + T) ** 2 * D;
    const blocks = 57 * (12 * (I + T) * D * D + attention);
    const ends = 2 * I * 64 * D; // the prompt is embedded once, before the first step
    const flops = countFlops(traceCut(model, {}).graph, {
      batch: 1,
      pairs: 1,
      conditions: 1,
      rows: 64,
      columns: 64,
      text: T,
    });
    expect(flops).toBeGreaterThan(2 * (blocks + ends));
    expect(flops / (2 * (blocks + ends))).toBeLessThan(1.005);
  });

  test.each([
    ["module", 19 * 4 + 38, 76 * (I + T) * D],
    ["block", 19 * 2 + 38, 57 * (I + T) * D],
    ["stack", 1, I * D],
    ["output", 1, I * 64],
  ] as const)("at '%s': %i features of %i elements in all", (level, count, elements) => {
    const { forecasts } = traceCut(model, { forecast: { level }, state: newestOnly });
    expect(forecasts).toHaveLength(count);
    expect(
      forecasts.reduce((sum, feature) => sum + bindDim(feature.elements, { rows: 64, columns: 64, text: T }), 0),
    ).toBe(elements);
  });

  test("a forecast at 'module' keeps the embedders and the final layer, and no weight of a block", () => {
    const weights = traceCut(model, { forecast: { level: "module" }, state: newestOnly }).graph.reachable().weights;
    const layers = new Set(weights.map(({ name }) => name.replace(/\.(weight|bias)$/, "")));
    expect([...layers].sort()).toEqual(["proj_out", "x_embedder"]);
  });
});

describe("configs", () => {
  test("what is left out has diffusers' defaults", () => {
    expect(fluxConfigFromJson({ guidance_embeds: true })).toEqual(fluxDev);
    expect(fluxConfigFromJson({ in_channels: 8, out_channels: null }).outChannels).toBe(8);
  });

  test.each([
    ["num_layers", { num_layers: 0 }],
    ["num_single_layers", { num_single_layers: 1.5 }],
    ["attention_head_dim", { attention_head_dim: "128" }],
    ["guidance_embeds", { guidance_embeds: 1 }],
    ["axes_dims_rope", { axes_dims_rope: [64, 64] }],
    ["axes_dims_rope", { axes_dims_rope: [15, 57, 56] }],
    ["axes_dims_rope", { attention_head_dim: 64 }],
    ["(root)", null],
  ])("%s: %j is refused", async (field, json) => {
    const message = await femoError("E_CONFIG", () => fluxConfigFromJson(json, "here/config.json"));
    expect(message).toContain("here/config.json");
    expect(message).toContain(field);
  });
});
