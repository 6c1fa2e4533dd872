import { parentPort, workerData } from "node:worker_threads";
import * as ort from "onnxruntime-node";
import { type Call, Executor } from "./executor.js";

const executor = new Executor(ort, workerData);
let queue = Promise.resolve();

parentPort?.on("message", ({ id, call }: { id: number; call: Call }) => {
  queue = queue.then(async () => {
    try {
      parentPort?.postMessage({ id, value: await executor.call(call) });
    } catch (error) {
      parentPort?.postMessage({ id, error: error instanceof Error ? error.message : String(error) });
    }
  });
});
