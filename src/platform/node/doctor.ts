import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { env } from "onnxruntime-common";
import { FemoError } from "../../errors.js";
import { Graph, toOnnx } from "../../graph/index.js";
import type { Engine } from "../../runtime/engine.js";
import { embeddedModels } from "./embedded.js";
import { startNodeEngine } from "./engine.js";
import type { NodeDevice } from "./providers.js";

/** A device of this machine. */
export interface DeviceReport {
  readonly device: NodeDevice;
  /** In words; undefined if it cannot be used. */
  readonly title?: string;
  /** Of products of large matrices in float32, 10^9 floating-point operations a second. */
  readonly gflops?: number;
  /** Why it cannot be used, and what to do about it. */
  readonly missing?: string;
}

/** What this machine has for femo. */
export interface MachineReport {
  readonly versions: Readonly<Record<"node" | "onnxruntime", string>>;
  readonly system: string;
  readonly cpu: { readonly model: string; readonly cores: number };
  /** Bytes; `allowed` is what the process may have, if that is less than all. */
  readonly memory: { readonly total: number; readonly free: number; readonly allowed?: number };
  readonly devices: readonly DeviceReport[];
  readonly models: readonly string[];
}

/** Looks at everything; each device that is there computes for about a second. */
export async function machineReport(signal?: AbortSignal): Promise<MachineReport> {
  const devices: DeviceReport[] = [];
  for (const device of ["cpu", "webgpu", "cuda", "coreml", "dml"] as const) {
    signal?.throwIfAborted();
    devices.push(await deviceReport(device));
  }
  const allowed = process.constrainedMemory?.() ?? 0;
  return {
    versions: { node: process.versions.node, onnxruntime: env.versions.common },
    system: `${process.platform} ${process.arch}`,
    cpu: { model: cpus()[0]?.model.trim() ?? "unknown", cores: availableParallelism() },
    memory: {
      total: totalmem(),
      free: freemem(),
      ...(allowed > 0 && allowed < totalmem() && { allowed }),
    },
    devices,
    models: embeddedModels(),
  };
}

async function deviceReport(device: NodeDevice): Promise<DeviceReport> {
  let engine: Engine | undefined;
  try {
    engine = await startNodeEngine({ device, quiet: true });
    return { device, title: engine.device.title, gflops: await productRate(engine) };
  } catch (error) {
    if (error instanceof FemoError) return { device, missing: error.message };
    throw error;
  } finally {
    await engine?.close();
  }
}

const PRODUCTS = 4;
const ROUNDS = 3;
/** Products that take longer say enough of a device. */
const ENOUGH_MS = 20;

/** Of products of matrices of the first size that keeps the device busy for a while. */
async function productRate(engine: Engine): Promise<number> {
  let rate = 0;
  for (const size of [256, 512, 1024, 2048]) {
    const ms = await productMs(engine, size);
    rate = (2 * size ** 3 * PRODUCTS) / ms / 1e6;
    if (ms > ENOUGH_MS) break;
  }
  return rate;
}

/** Milliseconds of some products, one after the other, of matrices that stay with the engine; the best of some rounds. */
async function productMs(engine: Engine, size: number): Promise<number> {
  const graph = new Graph();
  const matrix = graph.input("a", [size, size]);
  let product = matrix;
  for (let i = 0; i < PRODUCTS; i++) product = product.matMul(matrix);
  graph.output("y", product.mean([0, 1])); // a number: no matrix crosses to here
  await engine.holdZeros({ a: [size, size] });
  const session = await engine.load({ model: toOnnx(graph, () => undefined, { target: engine.target }), files: [] });
  const times: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const { durationMs } = await session.run({ feeds: { a: { held: "a" } }, fetch: ["y"] });
    if (round > 0) times.push(durationMs); // the first compiles kernels
  }
  await session.release();
  return Math.min(...times);
}
