import { availableParallelism, cpus, freemem, totalmem } from "node:os";
import { env } from "onnxruntime-common";
import { FemoError } from "../../errors.js";
import type { Engine } from "../../runtime/engine.js";
import { fewBitsRate, productRate } from "../../runtime/product-rate.js";
import { embeddedModels } from "./embedded.js";
import { startNodeEngine } from "./engine.js";
import type { NodeDevice } from "./providers.js";

/** A device of this machine. */
export interface DeviceReport {
  readonly device: NodeDevice;
  /** In words; undefined if it cannot be used. */
  readonly title?: string;
  /** Of linear layers in float32, 10^9 floating-point operations a second. */
  readonly gflops?: number;
  /** Of those with weights in fewer bits, as `dtype` has them; undefined what the device does not multiply in. */
  readonly fewBitsGflops?: Readonly<Record<"int8" | "int4", number | undefined>>;
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

/** Looks at everything; each device that is there computes for some seconds. */
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
    const gflops = await productRate(engine);
    const fewBitsGflops = { int8: await fewBitsRate(engine, 8), int4: await fewBitsRate(engine, 4) };
    return { device, title: engine.device.title, gflops, fewBitsGflops };
  } catch (error) {
    if (error instanceof FemoError) return { device, missing: error.message };
    throw error;
  } finally {
    await engine?.close();
  }
}
