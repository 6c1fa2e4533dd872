import * as ort from "onnxruntime-node";
import { Graph, toOnnx } from "../../graph/index.js";
import { wrongAttention } from "../attention-check.js";
import type { Device } from "../device.js";

/** What a process of the engine computes on. */
export type NodeDevice = Exclude<Device, "auto" | "wasm">;

/** The runtime's providers for a device: what that has no operator for goes to the processor. */
export const providersOf = (device: NodeDevice): string[] => (device === "cpu" ? ["cpu"] : [device, "cpu"]);

/** Why a device does not compute here, and what to do about it; undefined if it does. */
export async function probeDevice(device: NodeDevice): Promise<string | undefined> {
  const graph = new Graph();
  graph.output("y", graph.input("x", ["n", 4]).matMul(graph.constant(new Float32Array(16).fill(1), [4, 4])));
  try {
    const session = await ort.InferenceSession.create(
      toOnnx(graph, () => undefined),
      // Otherwise the processor would take the place of a provider that is missing.
      { executionProviders: [device], logSeverityLevel: 3, extra: { session: { disable_cpu_ep_fallback: "1" } } },
    );
    const { y } = await session.run({ x: new ort.Tensor("float32", Float32Array.of(1, 2, 3, 4), [1, 4]) });
    await session.release();
    const found = Number(y?.data[0]);
    if (!(Math.abs(found - 10) < 0.01)) return `device: "${device}" computes wrong: 1 + 2 + 3 + 4 gave ${found}`;
    const error =
      device === "webgpu"
        ? await wrongAttention(ort, { executionProviders: [device, "cpu"], logSeverityLevel: 3 })
        : undefined;
    return error === undefined
      ? undefined
      : `device: this GPU computes attention wrong (off by ${error.toPrecision(2)}): it is one in software, or its driver is old. Take "cpu".`;
  } catch (cause) {
    const reason = (cause instanceof Error ? cause.message : String(cause)).replace(/^\/\S+ \S.*? was false\. /, "");
    return `device: "${device}" cannot be used here: ${reason.split("\n")[0]?.replace(/\.$/, "").slice(0, 300)}. ${ADVICE[device]}`;
  }
}

const ADVICE: Readonly<Record<NodeDevice, string>> = {
  cpu: "Install onnxruntime-node again.",
  webgpu:
    "It takes a GPU and its driver: on Linux Vulkan's (libvulkan1, and mesa-vulkan-drivers or NVIDIA's), in a container the " +
    'GPU passed through; on Windows and macOS the system\'s own. Or take "cpu".',
  cuda:
    "It takes an NVIDIA GPU, Linux on x64, CUDA, cuDNN and ONNX Runtime's libraries for it, which onnxruntime-node downloads " +
    'when its install script may run: npm rebuild onnxruntime-node --ignore-scripts=false. Or take "webgpu" or "cpu".',
  coreml: 'Only macOS has it. Take "webgpu" or "cpu" elsewhere.',
  dml: 'Only Windows has it. Take "webgpu" or "cpu" elsewhere.',
};
