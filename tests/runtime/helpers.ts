import { afterAll } from "vitest";
import { type Graph, sizeOf, toOnnx } from "../../src/graph/index.js";
import { createNodeEngine } from "../../src/platform/node/engine.js";
import { nodeFolder } from "../../src/platform/node/folder.js";
import type { Engine, HostTensor, WeightFile } from "../../src/runtime/engine.js";
import type { Checkpoint, TensorInfo } from "../../src/weights/index.js";
import { openCheckpoint } from "../../src/weights/index.js";
import { random } from "../methods/forecasts/replay.js";

/** An engine of one thread for the tests of a file. */
export function engineForTests(): Engine {
  const engine = createNodeEngine({ threads: 1 });
  afterAll(() => engine.close());
  return engine;
}

export const floats = (dims: readonly number[], data: ArrayLike<number>): HostTensor => ({
  dtype: "float32",
  dims,
  data: Float32Array.from(data),
});
export const integers = (dims: readonly number[], data: readonly number[]): HostTensor => ({
  dtype: "int64",
  dims,
  data: BigInt64Array.from(data, BigInt),
});
export function noise(dims: readonly number[], seed: number): HostTensor {
  const next = random(seed);
  return floats(
    dims,
    Array.from({ length: sizeOf(dims) }, () => 2 * next()),
  );
}
export const numbers = (tensor: HostTensor | undefined): number[] => Array.from(tensor?.data ?? [], Number);

/** max |a - b| / max |b| */
export function relativeError(found: ArrayLike<number>, wanted: ArrayLike<number>): number {
  if (found.length !== wanted.length) throw new Error(`${found.length} values, wanted ${wanted.length}`);
  let [difference, scale] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    const d = Math.abs((found[i] as number) - (wanted[i] as number));
    if (!(d <= difference)) difference = d; // a NaN stays
    scale = Math.max(scale, Math.abs(wanted[i] as number));
  }
  return difference === 0 ? 0 : difference / scale;
}

/** A checkpoint's weights as graphs refer to them. */
export interface Weights {
  readonly files: readonly WeightFile[];
  locate(tensor: string): (TensorInfo & { file: string }) | undefined;
}
export function weightsOf(checkpoint: Checkpoint): Weights {
  const stored = new Map(checkpoint.tensors().map((tensor) => [tensor.name, tensor as TensorInfo]));
  const nameOf = (file: string) => file.slice(file.lastIndexOf("/") + 1);
  return {
    files: [...new Set([...stored.values()].map(({ file }) => file))].map((at) => ({ name: nameOf(at), at })),
    locate: (name) => {
      const tensor = stored.get(name);
      return tensor && { ...tensor, file: nameOf(tensor.file) };
    },
  };
}
export const openWeights = async (folder: string, file: string): Promise<Weights> =>
  weightsOf(await openCheckpoint(nodeFolder(folder), file));

/** Runs a graph once and gives all its outputs. */
export async function evaluate(
  engine: Engine,
  graph: Graph,
  feeds: Readonly<Record<string, HostTensor>>,
  weights?: Weights,
): Promise<Readonly<Record<string, HostTensor>>> {
  const locate = (weights?.locate ?? (() => undefined)) as Parameters<typeof toOnnx>[1];
  const session = await engine.load({ model: toOnnx(graph, locate), files: weights?.files ?? [] });
  try {
    const used = new Set(graph.reachable().inputs.map(({ name }) => name));
    const wanted = Object.fromEntries(Object.entries(feeds).filter(([name]) => used.has(name)));
    return (await session.run({ feeds: wanted, fetch: graph.outputs.map(({ name }) => name) })).outputs;
  } finally {
    await session.release();
  }
}
