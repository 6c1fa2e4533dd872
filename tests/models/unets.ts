import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type Bindings, bindDim, type Graph, toOnnx } from "../../src/graph/index.js";
import { unet } from "../../src/models/unet.js";
import { type UNetConfig, unetConfigFromJson } from "../../src/models/unet-config.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { Engine, HostTensor } from "../../src/runtime/engine.js";
import { type Cut, graphNames, type Model, type TracedGraph, traceCut } from "../../src/tracing/index.js";
import { type Checkpoint, openCheckpoint } from "../../src/weights/index.js";
import { evaluate, floats, integers, type Weights, weightsOf } from "../runtime/helpers.js";

type Tensors = Readonly<Record<string, HostTensor>>;

/** Tiny U-Nets (tests/goldens/unet/make.py). */
export const unetNames = ["sd1", "sd2", "sdxl", "refiner", "ssd", "lcm", "inpaint"] as const;
export const unetFolder = (name: string): string => fileURLToPath(new URL(`../goldens/unet/${name}`, import.meta.url));

export interface TinyUNet {
  readonly config: UNetConfig;
  readonly model: Model;
  readonly checkpoint: Checkpoint;
  readonly weights: Weights;
  /** What goes into the whole graph, and "output", what diffusers makes of it. */
  readonly tensors: Tensors;
  readonly sizes: Bindings;
  /** What goes into a step's graph, the tables included. */
  feeds(engine: Engine): Promise<Tensors>;
}

export async function openUNet(name: (typeof unetNames)[number]): Promise<TinyUNet> {
  const folder = unetFolder(name);
  const read = unetConfigFromJson(JSON.parse(readFileSync(`${folder}/unet/config.json`, "utf8")));
  const open = (file: string) => openCheckpoint(nodeFolder(folder), file);
  const [checkpoint, golden] = [
    await open("unet/diffusion_pytorch_model.safetensors"),
    await open("golden.safetensors"),
  ];
  const tensors: Record<string, HostTensor> = {};
  for (const { name, shape } of golden.tensors()) tensors[name] = floats(shape, await golden.readTensor(name));
  const config = { ...read, addition: read.addition && { ...read.addition, ...additionOf(tensors) } };
  const [sample, states] = [tensors.sample, tensors.encoder_hidden_states] as [HostTensor, HostTensor];
  const [, channels, height, width] = sample.dims as [number, number, number, number];
  if (channels === 9) Object.assign(tensors, parts(sample));
  const model = unet(config);
  const weights = weightsOf(checkpoint);
  return {
    ...{ config, model, checkpoint, weights, tensors },
    sizes: { height, width, text: states.dims[1] as number },
    async feeds(engine) {
      const tables = await Promise.all(
        (["pair", "condition"] as const).map((hoisted) =>
          evaluate(engine, traceCut(model, { hoisted }).graph, tensors, weights),
        ),
      );
      const rows = integers([2], [0, 1]);
      return Object.assign({}, tensors, ...tables, { pair: rows, condition: rows });
    },
  };
}

/** What no config says of the numbers beside the pooled text. */
const additionOf = ({ text_embeds, time_ids }: Tensors) => ({
  pooledProjectionDim: text_embeds?.dims[1] as number,
  timeIds: time_ids?.dims[1] as number,
});

/** Nine channels: a latent, a mask, and the latent of the masked image. */
function parts({ dims, data }: HostTensor): Tensors {
  const [batch, channels, height, width] = dims as [number, number, number, number];
  const area = height * width;
  const take = (first: number, count: number): HostTensor =>
    floats(
      [batch, count, height, width],
      Array.from({ length: batch }, (_, n) => {
        const start = (n * channels + first) * area;
        return Array.from(data.subarray(start, start + count * area) as Float32Array);
      }).flat(),
    );
  return { sample: take(0, 4), mask: take(4, 1), masked_image_latents: take(5, 4) };
}

/** What a forecast takes to be its features' own values, times a factor. */
export function keptAs(captured: TracedGraph["captured"], truth: Tensors, sizes: Bindings, factor = 1): Tensors {
  const history = captured.map(({ name, elements }) => {
    const { data } = truth[graphNames.feature(name)] as HostTensor;
    return [graphNames.history(name, 0), floats([2, 1, bindDim(elements, sizes)], data as Float32Array)] as const;
  });
  const weights = new Float32Array(2 * captured.length).fill(factor);
  return { ...Object.fromEntries(history), [graphNames.combine]: floats([captured.length, 2, 1, 1], weights) };
}

/** Runs a graph, loaded once, on several feeds. */
export async function evaluateEach(
  engine: Engine,
  graph: Graph,
  feeds: readonly Tensors[],
  weights: Weights,
): Promise<Tensors[]> {
  const locate = weights.locate as Parameters<typeof toOnnx>[1];
  const session = await engine.load({ model: toOnnx(graph, locate), files: weights.files });
  const used = new Set(graph.reachable().inputs.map(({ name }) => name));
  const fetch = graph.outputs.map(({ name }) => name);
  try {
    const all: Tensors[] = [];
    for (const given of feeds) {
      const wanted = Object.fromEntries(Object.entries(given).filter(([name]) => used.has(name)));
      all.push((await session.run({ feeds: wanted, fetch })).outputs);
    }
    return all;
  } finally {
    await session.release();
  }
}

/** Names of the weights that a graph multiplies with. */
export const weightNames = (model: Model, cut: Cut): Set<string> =>
  new Set(
    traceCut(model, cut)
      .graph.reachable()
      .weights.map(({ name }) => name),
  );
