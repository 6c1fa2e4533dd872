import { FemoError } from "../../errors.js";
import type { Engine } from "../../runtime/engine.js";
import { Calls, remoteEngine } from "../../runtime/remote-engine.js";
import type { Device } from "../device.js";
import type { EngineOptions } from "../platform.js";
import { isHardware, requestAdapter } from "./gpu.js";
import type { FromWorker, Ready, Setup, ToWorker } from "./worker-messages.js";

const MAX_THREADS = 64;

/** The builds of the runtime: each a worker with a WebAssembly file of its own. */
type Build = "wasm" | "jspi" | "webgpu";

/**
 * onnxruntime-web in a worker. The GPU is taken if there is one and nothing else is said.
 * @throws FemoError E_OPTION if the browser does not have the device, or threads are out of range; E_RUNTIME if the worker
 *   cannot start
 */
export async function createWebEngine({ threads, device = "auto" }: EngineOptions = {}): Promise<Engine> {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)) {
    throw new FemoError("E_OPTION", `threads: expected an integer from 1 to ${MAX_THREADS}, found ${threads}`);
  }
  const chosen = await chosenDevice(device);
  const build: Build = chosen === "wasm" ? "wasm" : "Suspending" in WebAssembly ? "jspi" : "webgpu";
  const most = chosen === "wasm" ? threadsAtHand(threads) : 1;
  try {
    return await start(build, { device: chosen, threads: most, wasm: undefined });
  } catch (error) {
    // Phones reserve all memory that threads may share, and refuse.
    if (most > 1) return start(build, { device: chosen, threads: 1, wasm: undefined });
    if (device === "auto" && chosen === "webgpu") return createWebEngine({ threads, device: "wasm" });
    throw error;
  }
}

/** @throws FemoError E_OPTION if the browser does not have it */
async function chosenDevice(device: Device): Promise<"wasm" | "webgpu"> {
  if (device === "wasm" || device === "cpu") return "wasm";
  if (device !== "auto" && device !== "webgpu") {
    throw new FemoError("E_OPTION", `device: no browser has "${device}": take "webgpu" for the GPU, or "wasm"`);
  }
  const adapter = await requestAdapter();
  if (device === "auto") return adapter && isHardware(adapter) ? "webgpu" : "wasm";
  if (adapter) return "webgpu";
  const advice = globalThis.isSecureContext
    ? "Take a browser with WebGPU (Chrome, Edge, Safari 26, Firefox 141 on Windows), see that hardware acceleration is on in its settings"
    : "Serve the page over https or from localhost";
  throw new FemoError("E_OPTION", `device: this browser offers pages no GPU. ${advice}, or take "wasm".`);
}

/** Threads need memory that is shared, which pages get that are isolated from other origins. */
function threadsAtHand(wanted: number | undefined): number {
  if (typeof SharedArrayBuffer === "undefined" || !globalThis.crossOriginIsolated) return 1;
  const cores = navigator.hardwareConcurrency || 1;
  return wanted ?? Math.min(8, cores <= 4 ? cores : Math.ceil(cores / 2));
}

async function start(build: Build, setup: Setup): Promise<Engine> {
  const { worker, wasm } = startWorker(build);
  const post = (message: ToWorker): void => worker.postMessage(message);
  const calls = new Calls((id, call) => post({ id, call }));
  const end = (error: FemoError): void => {
    calls.end(error);
    worker.terminate();
  };
  let ready: Ready;
  try {
    ready = await new Promise<Ready>((resolve, reject) => {
      worker.onmessage = ({ data }: MessageEvent<FromWorker>) => {
        if ("ready" in data) resolve(data.ready);
        else if ("failed" in data) reject(new FemoError("E_RUNTIME", `ONNX Runtime cannot start: ${data.failed}`));
        else if ("lost" in data) {
          const lost = lostGpu(data.lost);
          reject(lost);
          end(lost);
        } else calls.settle(data);
      };
      worker.onerror = (event) => {
        event.preventDefault();
        const error = brokenWorker(event.message, build);
        reject(error);
        end(error);
      };
      post({ setup: { ...setup, wasm: setup.wasm ?? wasm } });
    });
  } catch (error) {
    worker.terminate();
    throw error;
  }
  const { device, threads } = setup;
  return remoteEngine(calls, {
    target: device === "webgpu" ? "gpu" : "cpu",
    device: {
      kind: device,
      title: ready.gpu ?? `WebAssembly, ${threads} thread${threads > 1 ? "s" : ""}`,
      ...(ready.float16 !== undefined && { float16: ready.float16 }),
    },
    files: (files) => files,
    async close() {
      end(new FemoError("E_RUNTIME", "the engine is closed"));
    },
  });
}

const lostGpu = (reason: string): FemoError =>
  new FemoError(
    "E_RUNTIME",
    `the GPU was lost (${reason}): its driver has restarted, or its memory is full. Open the model again; if it happens ` +
      'again, close other pages, draw smaller or fewer images, or take device "wasm".',
  );

/** A worker that does not load says nothing; one that fails later says what. */
const brokenWorker = (message: string | undefined, build: Build): FemoError =>
  new FemoError(
    "E_RUNTIME",
    message
      ? `the engine's worker failed: ${message}. Open the model again.`
      : `the engine's worker could not be loaded. Is engine-${build}.js beside the page's script? Bundlers that do not find ` +
          "workers need a copy of node_modules/femo/dist/web there; a content security policy must allow worker-src 'self'.",
  );

/** As bundlers find them: each address in one expression. */
function bundledWorker(build: Build): Worker {
  switch (build) {
    case "wasm":
      return new Worker(new URL("./engine-wasm.js", import.meta.url), { type: "module" });
    case "jspi":
      return new Worker(new URL("./engine-jspi.js", import.meta.url), { type: "module" });
    case "webgpu":
      return new Worker(new URL("./engine-webgpu.js", import.meta.url), { type: "module" });
  }
}

/** Names of the runtime's WebAssembly files. */
const WASM: Readonly<Record<Build, string>> = {
  wasm: "ort-wasm-simd-threaded.wasm",
  jspi: "ort-wasm-simd-threaded.jspi.wasm",
  webgpu: "ort-wasm-simd-threaded.asyncify.wasm",
};

/** Scripts of another origin may not be started as workers, but be imported by one. */
function startWorker(build: Build): { readonly worker: Worker; readonly wasm: string | undefined } {
  const here = import.meta.url;
  try {
    return { worker: bundledWorker(build), wasm: undefined };
  } catch (cause) {
    const file = `engine-${build}.js`;
    if (new URL(here).origin === location.origin) throw cause;
    const script = `import ${JSON.stringify(String(new URL(file, here)))};`;
    const worker = new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })), { type: "module" });
    return { worker, wasm: String(new URL(WASM[build], here)) };
  }
}
