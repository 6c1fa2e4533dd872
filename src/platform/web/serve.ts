import type * as Ort from "onnxruntime-common";
import { FemoError } from "../../errors.js";
import { Graph, toOnnx } from "../../graph/index.js";
import type { WeightFile } from "../../runtime/engine.js";
import { Executor, type Host } from "../../runtime/executor.js";
import { hostMemory } from "../../runtime/memory.js";
import { answering } from "../../runtime/remote-engine.js";
import { wrongAttention } from "../attention-check.js";
import { gpuMemory, requestAdapter, requestDevice, titleOf } from "./gpu.js";
import type { FromWorker, Ready, Setup, ToWorker } from "./worker-messages.js";

/** The runtime's own threads are workers from the same file, which it starts itself. */
const isThread = (): boolean => self.name.startsWith("em-pthread");

const tell = (message: FromWorker): void => self.postMessage(message);

/** The engine's worker: it sets the runtime up as the first message says, then answers calls. */
export function serve(ort: typeof Ort): void {
  if (isThread()) return;
  let answered: ReturnType<typeof answering> | undefined;
  self.onmessage = async ({ data }: MessageEvent<ToWorker>) => {
    if ("call" in data) {
      if (answered) tell(await answered(data.id, data.call));
      return;
    }
    try {
      const { host, ready } = await hostOf(ort, data.setup);
      answered = answering(new Executor(host));
      tell({ ready });
    } catch (error) {
      tell({ failed: error instanceof Error ? error.message : String(error) });
    }
  };
}

async function hostOf(ort: typeof Ort, { device, threads, wasm }: Setup): Promise<{ host: Host; ready: Ready }> {
  const { env } = ort;
  env.logLevel = "error";
  env.wasm.numThreads = threads;
  if (wasm !== undefined) env.wasm.wasmPaths = { wasm };
  const common = { ort, config: {}, locate, check: () => {} };
  const onCpu = { executionProviders: ["wasm"], logSeverityLevel: 3 } as const;
  if (device === "wasm") {
    await compile(ort, onCpu);
    return { host: { ...common, options: onCpu, memory: hostMemory(ort, false) }, ready: {} };
  }
  const adapter = await requestAdapter();
  if (!adapter) throw new FemoError("E_RUNTIME", "this browser offers pages no GPU");
  const gpu = await requestDevice(adapter);
  gpu.lost.then(({ message, reason }) => tell({ lost: message || reason || "unknown" }));
  gpu.addEventListener("uncapturederror", ({ error }) => console.warn(`femo: ${error.message}`));
  const onGpu = { executionProviders: [{ name: "webgpu", device: gpu as never }], logSeverityLevel: 3 } as const;
  const error = await wrongAttention(ort, onGpu);
  if (error !== undefined) {
    throw new FemoError(
      "E_RUNTIME",
      `this GPU computes attention wrong (off by ${error.toPrecision(2)}). Update its driver or the browser, or take device "wasm".`,
    );
  }
  return {
    // Sines of large arguments are imprecise on a GPU: timesteps are encoded on the host, once a request.
    host: { ...common, options: onGpu, once: onCpu, memory: gpuMemory(ort, gpu) },
    ready: { gpu: titleOf(adapter.info), float16: gpu.features.has("shader-f16") },
  };
}

/** Fetches and compiles the runtime's WebAssembly, which is done when the first graph is loaded: the least there is. */
const compile = async (ort: typeof Ort, options: Ort.InferenceSession.SessionOptions): Promise<void> => {
  const graph = new Graph();
  graph.output("y", graph.input("x", ["n"]));
  const session = await ort.InferenceSession.create(
    toOnnx(graph, () => undefined),
    options,
  );
  await session.release();
};

/** @throws FemoError E_FILE if a file is not at hand */
function locate(files: readonly WeightFile[]): ReturnType<Host["locate"]> {
  const externalData = files.map(({ name, at }) => {
    if (at instanceof Blob || at instanceof Uint8Array) return { path: name, data: at };
    throw new FemoError(
      "E_FILE",
      `${name}: expected a file that the browser has, found the address ${at}. Open the model by it.`,
    );
  });
  return externalData.length > 0 ? { externalData } : {};
}
