import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { sizeOf, toOnnx } from "../../src/graph/index.js";
import { type DiTConfig, dit, ditConfigFromJson } from "../../src/models/dit.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { Engine, HostTensor, Session } from "../../src/runtime/engine.js";
import { type Model, type TracedGraph, traceCut } from "../../src/tracing/index.js";
import { type Checkpoint, openCheckpoint, type TensorInfo } from "../../src/weights/index.js";
import { floats, integers, type Weights, weightsOf } from "../runtime/helpers.js";

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url));
export const goldenFolder = path("../goldens/dit");
export const embeddedFolder = path("../../models/avatars-dit");

export interface OpenModel {
  readonly config: DiTConfig;
  readonly model: Model;
  readonly checkpoint: Checkpoint;
  readonly weights: Weights;
  /** Runs a traced graph of the model; inputs that it does not have are left out. */
  run(traced: TracedGraph, feeds: Feeds): Promise<Readonly<Record<string, HostTensor>>>;
  /** The tables of the hoisted parts, a row for each timestep and class. */
  tables(timesteps: readonly number[], labels: readonly number[]): Promise<Feeds>;
}
export type Feeds = Readonly<Record<string, HostTensor>>;

/** The tensors that a model needs, as a file "/w/f.safetensors" would have them, which nobody reads. */
export const tensorsOf = (model: Model): TensorInfo[] =>
  traceCut(model, { hoisted: "inline" })
    .graph.reachable()
    .weights.map(({ name, shape }) => ({
      name,
      shape: shape as number[],
      dtype: "float32",
      file: "/w/f.safetensors",
      offset: 0,
      byteLength: 4 * sizeOf(shape as number[]),
    }));

/** A DiT in diffusers' layout. */
export async function openModel(engine: Engine, folder: string): Promise<OpenModel> {
  const config = ditConfigFromJson(JSON.parse(readFileSync(`${folder}/transformer/config.json`, "utf8")));
  const checkpoint = await openCheckpoint(nodeFolder(folder), "transformer/diffusion_pytorch_model.safetensors");
  const [model, weights] = [dit(config), weightsOf(checkpoint)];
  const sessions = new Map<TracedGraph, Promise<Session>>();
  const run: OpenModel["run"] = async (traced, feeds) => {
    const { graph } = traced;
    const session =
      sessions.get(traced) ??
      engine.load({
        model: toOnnx(graph, weights.locate as Parameters<typeof toOnnx>[1]),
        files: weights.files,
      });
    sessions.set(traced, session);
    const used = Object.fromEntries(
      graph.reachable().inputs.flatMap(({ name }) => {
        const feed = feeds[name];
        return feed ? [[name, feed] as const] : [];
      }),
    );
    return (await (await session).run({ feeds: used, fetch: graph.outputs.map(({ name }) => name) })).outputs;
  };
  const conditioning = traceCut(model, { hoisted: "pair" });
  return {
    config,
    model,
    checkpoint,
    weights,
    run,
    tables: (timesteps, labels) =>
      run(conditioning, {
        timestep: floats([timesteps.length], timesteps),
        class_label: integers([labels.length], labels),
      }),
  };
}

/** A file of float32 and int64 tensors. */
export async function openGolden(file: string, folder = goldenFolder): Promise<(name: string) => Promise<HostTensor>> {
  const checkpoint = await openCheckpoint(nodeFolder(folder), file);
  return async (name) => {
    const dims = checkpoint.get(name)?.shape ?? [];
    if (checkpoint.get(name)?.dtype !== "int64") return floats(dims, await checkpoint.readTensor(name));
    const data = new BigInt64Array(Uint8Array.from(await checkpoint.readBytes(name)).buffer);
    return { dtype: "int64", dims, data };
  };
}
