/** The engine's process. It answers calls one after the other; its argument is the number of threads, 0 for the default. */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import * as ort from "onnxruntime-node";
import { type Call, Executor } from "../../runtime/executor.js";
import { hostMemory } from "../../runtime/memory.js";
import { answering } from "../../runtime/remote-engine.js";
import { checkUnchanged, locate } from "./weight-files.js";

// The input ends when the process that started this one does. A thread waits for that, because a run blocks this one.
new Worker(`try { require("node:fs").readSync(0, Buffer.alloc(1)); } catch {} process.kill(process.pid, "SIGKILL");`, {
  eval: true,
});
// A terminal sends these to all its processes, and a service manager too: what they mean is for the other one to say.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});

const threads = Number(process.argv[2]);
const answered = answering(
  new Executor({
    ort,
    options: { intraOpNumThreads: threads, logSeverityLevel: 3 },
    // Threads that spin while they wait take the cores from those that work, once there are more of them than cores.
    config: threads > availableParallelism() ? { intra_op: { allow_spinning: "0" } } : {},
    memory: hostMemory(ort, true),
    locate,
    check: checkUnchanged,
  }),
);

process.on("message", async ({ id, call }: { id: number; call: Call }) => answer(await answered(id, call)));

/** Whoever cannot be reached has ended. */
function answer(message: object): void {
  process.send?.(message, undefined, {}, () => {});
}
