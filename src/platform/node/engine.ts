import { fork } from "node:child_process";
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import { cpus } from "node:os";
import { FemoError } from "../../errors.js";
import type { Engine } from "../../runtime/engine.js";
import { type Answer, Calls, remoteEngine } from "../../runtime/remote-engine.js";
import type { EngineOptions } from "../platform.js";
import { checkUnchanged, localFiles } from "./weight-files.js";

const MAX_THREADS = 1024;

/**
 * onnxruntime-node in a process of its own: a thread that is stopped inside a run, by `process.exit` or an uncaught
 * error, would abort the whole process. The engine's is killed instead, in the middle of a run or not: it ends itself when
 * its input does, however this process may have ended. It does not keep this process alive while it is idle.
 * @throws FemoError E_OPTION if `threads` is outside its range
 */
export function createNodeEngine({ threads }: EngineOptions = {}): Engine {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)) {
    throw new FemoError("E_OPTION", `threads: expected an integer from 1 to ${MAX_THREADS}, found ${threads}`);
  }
  // NODE_OPTIONS and flags of this process, such as --input-type or --inspect, need not fit the other.
  const { NODE_OPTIONS: _, ...env } = process.env;
  const child = fork(createRequire(import.meta.url).resolve("#engine-worker"), [String(threads ?? 0)], {
    execArgv: [],
    env: { ...env, ORT_DISABLE_TELEMETRY: "1" },
    serialization: "advanced", // typed arrays as they are
    stdio: ["pipe", "ignore", "inherit", "ipc"],
  });
  const lifeline = child.stdin as Socket | null;
  const paths = new Map<string, string>(); // of the weights in use -> fingerprint
  const calls = new Calls((id, call) => {
    child.send({ id, call });
    keepAlive(true);
  });

  const keepAlive = (alive: boolean): void => {
    for (const handle of [child, child.channel, lifeline]) alive ? handle?.ref() : handle?.unref();
  };
  const exited = new Promise<void>((resolve) => {
    child.on("exit", (code, signal) => {
      calls.end(deathOf(paths, signal ?? `exit code ${code}`));
      resolve();
    });
    child.on("error", (cause) => {
      calls.end(new FemoError("E_RUNTIME", `the engine's process cannot be reached: ${cause.message}`, { cause }));
      if (child.pid === undefined) resolve(); // never started, so it never exits
    });
  });
  child.on("message", (answer: Answer) => {
    calls.settle(answer);
    if (calls.isIdle && !calls.hasEnded) keepAlive(false);
  });
  keepAlive(false);

  return remoteEngine(calls, {
    target: "cpu",
    device: { kind: "cpu", title: cpus()[0]?.model.trim() ?? "CPU" },
    async files(files) {
      const local = await localFiles(files);
      for (const { at, fingerprint } of local) if (typeof at === "string" && fingerprint) paths.set(at, fingerprint);
      return local;
    },
    async close() {
      calls.end(new FemoError("E_RUNTIME", "the engine is closed"));
      keepAlive(true);
      child.kill("SIGKILL");
      await exited;
    },
  });
}

/** Why an engine died that was not closed: mapped weights that were cut short end a process with SIGBUS. */
function deathOf(paths: ReadonlyMap<string, string>, reason: string): FemoError {
  try {
    checkUnchanged([...paths].map(([at, fingerprint]) => ({ name: at, at, fingerprint })));
  } catch (error) {
    if (error instanceof FemoError) return error;
  }
  const advice = reason === "SIGKILL" ? " The system may have run out of memory." : "";
  return new FemoError("E_RUNTIME", `the engine's process died (${reason}).${advice} Open the model again.`);
}
