import { parentPort, workerData } from "node:worker_threads";
import * as ort from "onnxruntime-node";
import { type Call, Executor } from "./executor.js";

const executor = new Executor(ort, workerData);
let queue = Promise.resolve();
let closing = false;

parentPort?.on("message", (message: { id: number; call: Call } | "close") => {
  if (message === "close") {
    // A thread that is stopped inside a run takes the process with it: leave when the run is over.
    closing = true;
    queue = queue.then(() => process.exit());
    return;
  }
  const { id, call } = message;
  queue = queue.then(async () => {
    if (closing) return;
    try {
      parentPort?.postMessage({ id, value: await executor.call(call) });
    } catch (error) {
      parentPort?.postMessage({ id, error: error instanceof Error ? error.message : String(error) });
    }
  });
});
