/** The engine's process. It answers calls one after the other; its argument says how it computes (`WorkerOptions`). */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import * as ort from "onnxruntime-node";
import { FemoError } from "../../errors.js";
import type { Call } from "../../runtime/executor.js";
import { Executor } from "../../runtime/executor.js";
import { hostMemory } from "../../runtime/memory.js";
import { answering } from "../../runtime/remote-engine.js";
import type { WorkerOptions } from "./engine.js";
import { probeDevice, providersOf } from "./providers.js";
import { checkUnchanged, locate } from "./weight-files.js";

// The input ends when the process that started this one does. A thread waits for that, because a run blocks this one.
new Worker(`try { require("node:fs").readSync(0, Buffer.alloc(1)); } catch {} process.kill(process.pid, "SIGKILL");`, {
  eval: true,
});
// A terminal sends these to all its processes, and a service manager too: what they mean is for the other one to say.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});

const { threads, device } = JSON.parse(process.argv[2] ?? "{}") as WorkerOptions;
const onCpu = { executionProviders: ["cpu"], intraOpNumThreads: threads, logSeverityLevel: 3 } as const;
const answered = answering(
  new Executor({
    ort,
    options: { ...onCpu, executionProviders: providersOf(device) },
    memory: hostMemory(ort, true),
    // As in a browser: sines of large arguments are imprecise on a GPU, and it does not fold what a CPU does.
    ...(device === "webgpu" && { once: onCpu }),
    // Threads that spin while they wait take the cores from those that work, once there are more of them than cores.
    config: threads > availableParallelism() ? { intra_op: { allow_spinning: "0" } } : {},
    locate,
    check: checkUnchanged,
  }),
);
/** The runtime passes over providers that it does not have, without a word. */
const missing = device === "cpu" ? Promise.resolve(undefined) : probeDevice(device);

process.on("message", async ({ id, call }: { id: number; call: Call }) => {
  const reason = await missing;
  if (reason === undefined) answer(await answered(id, call));
  else {
    const { code, message } = new FemoError("E_OPTION", reason);
    answer({ id, code, error: message });
  }
});
/** Whoever cannot be reached has ended. */
function answer(message: object): void {
  process.send?.(message, undefined, {}, () => {});
}
