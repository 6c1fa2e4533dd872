import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import {
  countFlops,
  granularities,
  names,
  traceConditioning,
  traceForecast,
  traceFull,
  traceStep,
  traceWhole,
} from "../../src/graph/index.js";
import { flux } from "../../src/models/flux.js";
import { fluxConfigFromJson, fluxDev, fluxSchnell } from "../../src/models/flux-config.js";
import type { HostTensor } from "../../src/runtime/engine.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { nodeFolder } from "../../src/weights/node-folder.js";
import {
  engineForTests,
  evaluate,
  floats,
  integers,
  noise,
  numbers,
  relativeError,
  sizeOf,
  weightsOf,
} from "../runtime/helpers.js";
import { femoError } from "../weights/helpers.js";

const engine = engineForTests();
const newestOnly = { history: 1, averages: 0 };
const size = { rows: 3, columns: 5, textTokens: 4 };
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
  return { model: flux(config, size), checkpoint, weights: weightsOf(checkpoint), tensors };
}
type Tiny = Awaited<ReturnType<typeof openTiny>>;

describe.each(["tiny-dev", "tiny-schnell"])("%s", (name) => {
  let tiny: Tiny;
  beforeAll(async () => {
    tiny = await openTiny(name);
  });

  test("equals diffusers", async () => {
    const { model, weights, tensors } = tiny;
    const { output } = await evaluate(engine, traceWhole(model).graph, tensors, weights);
    expect(output?.dims).toEqual([2, ...model.outputShape]);
    expect(output?.dims).toEqual(tensors.output?.dims);
    expect(relativeError(numbers(output), numbers(tensors.output))).toBeLessThan(parity);
  });

  test("the checkpoint has exactly the model's tensors", () => {
    const needed = traceWhole(tiny.model).graph.reachable().weights;
    expect(needed.map(({ name, shape }) => `${name} ${shape}`).sort()).toEqual(
      tiny.checkpoint
        .tensors()
        .map(({ name, shape }) => `${name} ${shape}`)
        .sort(),
    );
  });

  test("conditioning tables and pairs give what the whole graph gives", async () => {
    const { model, weights, tensors } = tiny;
    const tables = await evaluate(engine, traceConditioning(model).graph, tensors, weights);
    const { sample, encoder_hidden_states } = tensors as Record<string, HostTensor>;
    const feeds = { ...tables, sample, encoder_hidden_states, pair: integers([2], [0, 1]) } as Record<
      string,
      HostTensor
    >;
    const { output } = await evaluate(engine, traceStep(model).graph, feeds, weights);
    expect(relativeError(numbers(output), numbers(tensors.output))).toBeLessThan(parity);
  });

  test.each(granularities)("forecasts at '%s': features kept and given back are features computed", async (level) => {
    const { model, weights, tensors } = tiny;
    const tables = await evaluate(engine, traceConditioning(model).graph, tensors, weights);
    const { sample, encoder_hidden_states } = tensors as Record<string, HostTensor>;
    const step = { ...tables, sample, encoder_hidden_states, pair: integers([2], [0, 1]) } as Record<
      string,
      HostTensor
    >;
    const [full, forecast] = [traceFull(model, level), traceForecast(model, level, newestOnly)];
    expect(forecast.features).toEqual(full.features);
    const count = full.features.length;
    const old = full.features.map(
      ({ name, elements }, i) => [names.history(name, 0), noise([2, 1, elements], i)] as const,
    );
    const kept = await evaluate(engine, full.graph, step, weights);
    expect(relativeError(numbers(kept.output), numbers(tensors.output))).toBeLessThan(parity);

    const state = full.features.map(({ name, elements }) => {
      const { dtype, data } = kept[names.feature(name)] as HostTensor;
      return [names.history(name, 0), { dtype, data, dims: [2, 1, elements] }] as const;
    });
    const combine = floats([count, 2, 1, 1], new Float32Array(2 * count).fill(1));
    const again = await evaluate(engine, forecast.graph, { ...step, ...Object.fromEntries(state), combine }, weights);
    expect(relativeError(numbers(again.output), numbers(kept.output))).toBeLessThan(rounding);
    const stale = await evaluate(engine, forecast.graph, { ...step, ...Object.fromEntries(old), combine }, weights);
    expect(relativeError(numbers(stale.output), numbers(kept.output))).toBeGreaterThan(1e-2);
  });
});

describe("FLUX.1-dev at 1024x1024, without its weights", () => {
  const model = flux(fluxDev);
  const [D, I, T] = [3072, 4096, 512];

  test("has the 11.9 billion parameters of the published checkpoint", () => {
    const weights = traceWhole(model).graph.reachable().weights;
    const parameters = weights.reduce((sum, { shape }) => sum + sizeOf(shape as number[]), 0);
    expect(parameters).toBe(11_901_408_320);
    const schnell = traceWhole(flux(fluxSchnell)).graph.reachable().weights;
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
    const ends = 2 * I * 64 * D + T * 4096 * D;
    const flops = countFlops(traceStep(model).graph, { batch: 1, pairs: 1 });
    expect(flops).toBeGreaterThan(2 * (blocks + ends));
    expect(flops / (2 * (blocks + ends))).toBeLessThan(1.005);
  });

  test.each([
    ["module", 19 * 4 + 38, 76 * (I + T) * D],
    ["block", 19 * 2 + 38, 57 * (I + T) * D],
    ["stack", 1, I * D],
    ["output", 1, I * 64],
  ] as const)("at '%s': %i features of %i elements in all", (level, count, elements) => {
    const { features } = traceForecast(model, level, newestOnly);
    expect(features).toHaveLength(count);
    expect(features.reduce((sum, feature) => sum + feature.elements, 0)).toBe(elements);
  });

  test("a forecast at 'module' keeps the embedders and the final layer, and no weight of a block", () => {
    const weights = traceForecast(model, "module", newestOnly).graph.reachable().weights;
    const layers = new Set(weights.map(({ name }) => name.replace(/\.(weight|bias)$/, "")));
    expect([...layers].sort()).toEqual(["context_embedder", "proj_out", "x_embedder"]);
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

  test.each([{ rows: 0 }, { columns: 1.5 }, { textTokens: Number.NaN }])("size %j is refused", async (bad) => {
    expect(await femoError("E_OPTION", () => flux(fluxDev, bad))).toContain(Object.keys(bad)[0]);
  });
});
