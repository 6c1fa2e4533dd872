import { fork } from "node:child_process";
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import { FemoError, type FemoErrorCode } from "../../errors.js";
import type { Engine, RunRequest, RunResult } from "../../runtime/engine.js";
import type { Call } from "../../runtime/executor.js";
import type { EngineOptions } from "../platform.js";
import { checkUnchanged, localFiles } from "./weight-files.js";

const MAX_THREADS = 1024;

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}
type Answer = { id: number; value: unknown } | { id: number; code: FemoErrorCode; error: string };

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
  const pending = new Map<number, Pending>();
  const paths = new Map<string, string>(); // of the weights in use -> fingerprint
  let count = 0;
  let ended: FemoError | undefined;

  const keepAlive = (alive: boolean): void => {
    for (const handle of [child, child.channel, lifeline]) alive ? handle?.ref() : handle?.unref();
  };
  const end = (error: FemoError): void => {
    ended ??= error;
    for (const call of pending.values()) call.reject(ended);
    pending.clear();
  };
  const exited = new Promise<void>((resolve) => {
    child.on("exit", (code, signal) => {
      end(deathOf(paths, signal ?? `exit code ${code}`));
      resolve();
    });
    child.on("error", (cause) => {
      end(new FemoError("E_RUNTIME", `the engine's process cannot be reached: ${cause.message}`, { cause }));
      if (child.pid === undefined) resolve(); // never started, so it never exits
    });
  });
  child.on("message", (answer: Answer) => {
    const call = pending.get(answer.id);
    pending.delete(answer.id);
    if (pending.size === 0 && !ended) keepAlive(false);
    if ("error" in answer) call?.reject(new FemoError(answer.code, answer.error));
    else call?.resolve(answer.value);
  });
  keepAlive(false);

  const send = <T>(call: Call): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (ended) return reject(ended);
      const id = ++count;
      child.send({ id, call });
      pending.set(id, { resolve: resolve as Pending["resolve"], reject });
      keepAlive(true);
    });

  return {
    async load(graph) {
      const files = await localFiles(graph.files);
      for (const { at, fingerprint } of files) if (typeof at === "string" && fingerprint) paths.set(at, fingerprint);
      const session = await send<number>({ method: "load", graph: { ...graph, files } });
      const runEach = (requests: readonly RunRequest[]) => send<RunResult[]>({ method: "run", session, requests });
      return {
        run: async (request) => (await runEach([request]))[0] as RunResult,
        runEach,
        release: () => send<void>({ method: "release", session }),
      };
    },
    holdZeros: (dims, dtype = "float32") => send<void>({ method: "holdZeros", dims, dtype }),
    take: (rows) => send<void>({ method: "take", rows }),
    free: (names) => send<void>({ method: "free", names }),
    async close() {
      end(new FemoError("E_RUNTIME", "the engine is closed"));
      keepAlive(true);
      child.kill("SIGKILL");
      await exited;
    },
  };
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
