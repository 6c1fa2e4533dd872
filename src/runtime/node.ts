import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { FemoError } from "../errors.js";
import type { Engine, RunRequest, RunResult } from "./engine.js";
import type { Call } from "./executor.js";

export interface NodeEngineOptions {
  /** Threads of one operator. Default: ONNX Runtime's choice, one per physical core. */
  threads?: number;
}

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** onnxruntime-node in a worker thread. The thread does not keep the process alive while it is idle. */
export function createNodeEngine(options: NodeEngineOptions = {}): Engine {
  const { threads } = options;
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1)) {
    throw new FemoError("E_OPTION", `threads: expected a positive integer, found ${threads}`);
  }
  const worker = new Worker(createRequire(import.meta.url).resolve("#engine-worker"), {
    execArgv: [], // flags of the process, such as --input-type, need not fit a file
    workerData: { ...(threads !== undefined && { intraOpNumThreads: threads }), logSeverityLevel: 3 },
  });
  worker.unref();
  const pending = new Map<number, Pending>();
  let count = 0;
  let ended: FemoError | undefined;

  const end = (error: FemoError): void => {
    ended ??= error;
    for (const call of pending.values()) call.reject(error);
    pending.clear();
  };
  worker.on("message", ({ id, value, error }: { id: number; value: unknown; error?: string }) => {
    const call = pending.get(id);
    pending.delete(id);
    if (pending.size === 0) worker.unref();
    if (error === undefined) call?.resolve(value);
    else call?.reject(new FemoError("E_RUNTIME", `ONNX Runtime: ${error}`));
  });
  worker.on("error", (error) => end(new FemoError("E_RUNTIME", `the engine died: ${error.message}`, { cause: error })));
  const exited = new Promise<void>((resolve) => {
    worker.on("exit", () => {
      end(new FemoError("E_RUNTIME", "the engine is closed"));
      resolve();
    });
  });

  const send = <T>(call: Call): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (ended) return reject(ended);
      const id = ++count;
      pending.set(id, { resolve: resolve as Pending["resolve"], reject });
      worker.ref();
      worker.postMessage({ id, call });
    });

  return {
    async load(graph) {
      const session = await send<number>({ method: "load", graph });
      const runEach = (requests: readonly RunRequest[]) => send<RunResult[]>({ method: "run", session, requests });
      return {
        run: async (request) => (await runEach([request]))[0] as RunResult,
        runEach,
        release: () => send<void>({ method: "release", session }),
      };
    },
    holdZeros: (dims) => send<void>({ method: "holdZeros", dims }),
    free: (names) => send<void>({ method: "free", names }),
    async close() {
      end(new FemoError("E_RUNTIME", "the engine is closed"));
      worker.ref();
      worker.postMessage("close");
      await exited;
    },
  };
}
