import type * as Ort from "onnxruntime-common";
import { FemoError } from "../../errors.js";
import { sizeOf } from "../../graph/shape.js";
import type { HostTensor } from "../../runtime/engine.js";
import { ARRAYS } from "../../runtime/host-tensor.js";
import { hostTensor, type Memory } from "../../runtime/memory.js";

/** Flags of WebGPU, which TypeScript does not declare yet. */
declare const GPUBufferUsage: Readonly<Record<"STORAGE" | "COPY_SRC" | "COPY_DST" | "MAP_READ", number>>;
declare const GPUMapMode: Readonly<Record<"READ", number>>;

/** Of subgroups narrower than this ONNX Runtime's attention reads keys twice, and says nothing. */
const MIN_SUBGROUP = 8;

/** Limits that are raised to what the adapter has: the defaults allow weights of 128 MiB. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/** @returns undefined if this browser, or this machine, has no GPU for pages */
export async function requestAdapter(): Promise<GPUAdapter | undefined> {
  const gpu = (navigator as Partial<Navigator>).gpu;
  return (await gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => null)) ?? undefined;
}

/** Whether a GPU is one: not the processor in its place. */
export const isHardware = ({ info }: GPUAdapter): boolean =>
  !(info as { isFallbackAdapter?: boolean }).isFallbackAdapter && !/swiftshader|llvmpipe|lavapipe/i.test(titleOf(info));

/** A GPU in words. */
export const titleOf = ({ vendor, architecture, description }: GPUAdapterInfo): string =>
  description || [vendor, architecture].filter(Boolean).join(" ") || "GPU";

/** A device with all that the adapter has and the runtime uses rightly. An adapter gives one. */
export async function requestDevice(adapter: GPUAdapter): Promise<GPUDevice> {
  const { features, limits, info } = adapter;
  const { subgroupMinSize = 0 } = info as { subgroupMinSize?: number };
  const wanted: GPUFeatureName[] = [];
  if (features.has("shader-f16")) wanted.push("shader-f16");
  if (features.has("subgroups" as GPUFeatureName) && subgroupMinSize >= MIN_SUBGROUP)
    wanted.push("subgroups" as GPUFeatureName);
  const device = await adapter.requestDevice({
    requiredFeatures: wanted,
    requiredLimits: Object.fromEntries(LIMITS.map((name) => [name, limits[name]])),
  });
  // The runtime asks the device for it, which some browsers do not know yet.
  if (!(device as { adapterInfo?: GPUAdapterInfo }).adapterInfo) {
    Object.defineProperty(device, "adapterInfo", { value: info });
  }
  return device;
}

/** The GPU's memory: held tensors are buffers of ours, into which runs write and from which they read. */
export function gpuMemory(ort: typeof Ort, device: GPUDevice): Memory {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

  async function make(dtype: HostTensor["dtype"], dims: readonly number[]): Promise<Ort.Tensor> {
    const bytes = ARRAYS[dtype].BYTES_PER_ELEMENT * sizeOf(dims);
    const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
    const most = Math.min(maxBufferSize, maxStorageBufferBindingSize);
    if (bytes > most) {
      throw new FemoError("E_RUNTIME", `${bytes} bytes, of which this GPU takes at most ${most} in one tensor`);
    }
    device.pushErrorScope("out-of-memory");
    const buffer = device.createBuffer({ size: Math.max(16, Math.ceil(bytes / 16) * 16), usage });
    const error = await device.popErrorScope();
    if (error)
      throw new FemoError("E_RUNTIME", `the GPU has no memory for ${bytes} bytes. Draw fewer or smaller images.`);
    return tensorOf(buffer, dtype, dims);
  }
  const tensorOf = (buffer: GPUBuffer, dataType: HostTensor["dtype"], dims: readonly number[]): Ort.Tensor =>
    ort.Tensor.fromGpuBuffer(buffer as never, { dataType, dims });
  const bufferOf = (tensor: Ort.Tensor): GPUBuffer => tensor.gpuBuffer as unknown as GPUBuffer;
  /** Each run gets an object of its own: one that has owned a buffer takes no other shape. */
  const view = (held: Ort.Tensor, dims: readonly number[] = held.dims): Ort.Tensor =>
    tensorOf(bufferOf(held), held.type as HostTensor["dtype"], dims);

  return {
    async zeros(dtype, dims, old) {
      if (old?.type === dtype && old.dims.join() === dims.join()) {
        const encoder = device.createCommandEncoder();
        encoder.clearBuffer(bufferOf(old));
        device.queue.submit([encoder.finish()]);
        return old;
      }
      if (old) bufferOf(old).destroy();
      return make(dtype, dims);
    },
    target: view,
    async keep(tensor) {
      if (tensor.location !== "cpu") return tensor;
      const { dtype, dims, data } = await hostTensor("what is held", tensor);
      const kept = await make(dtype, dims);
      const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
      // Whole words are written: the last may be half filled.
      const words = bytes.byteLength % 4 === 0 ? bytes : new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
      if (words !== bytes) words.set(bytes);
      device.queue.writeBuffer(bufferOf(kept), 0, words);
      return kept;
    },
    view,
    async read(_, tensor) {
      const [dtype, size] = [tensor.type as HostTensor["dtype"], sizeOf(tensor.dims)];
      const bytes = Math.max(4, Math.ceil((ARRAYS[dtype].BYTES_PER_ELEMENT * size) / 4) * 4);
      const staging = device.createBuffer({ size: bytes, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
      try {
        const encoder = device.createCommandEncoder();
        encoder.copyBufferToBuffer(bufferOf(tensor), 0, staging, 0, bytes);
        device.queue.submit([encoder.finish()]);
        await staging.mapAsync(GPUMapMode.READ);
        return { dtype, dims: tensor.dims, data: new ARRAYS[dtype](staging.getMappedRange().slice(0), 0, size) };
      } finally {
        staging.destroy();
      }
    },
    free: (held) => bufferOf(held).destroy(),
  };
}
