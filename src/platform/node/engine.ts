import { fork } from "node:child_process";
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import { cpus } from "node:os";
import { FemoError } from "../../errors.js";
import type { Engine } from "../../runtime/engine.js";
import { type Answer, Calls, remoteEngine } from "../../runtime/remote-engine.js";
import type { EngineOptions } from "../platform.js";
import { NativeWords } from "./native-words.js";
import type { NodeDevice } from "./providers.js";
import { checkUnchanged, localFiles } from "./weight-files.js";

const MAX_THREADS = 1024;

const TITLES: Readonly<Record<Exclude<NodeDevice, "cpu">, string>> = {
  webgpu: "GPU by WebGPU",
  cuda: "NVIDIA GPU by CUDA",
  coreml: "CoreML",
  dml: "DirectML",
};

/** The argument of the engine's process, as JSON. */
export interface WorkerOptions {
  /** 0: the runtime's own number. */
  readonly threads: number;
  readonly device: NodeDevice;
}

export interface NodeEngineOptions extends EngineOptions {
  /** What native code says on standard error is not passed on. Default false. */
  readonly quiet?: boolean;
}

/**
 * onnxruntime-node in a process of its own: a thread that is stopped inside a run, by `process.exit` or an uncaught
 * error, would abort the whole process. The engine's is killed instead, in the middle of a run or not: it ends itself when
 * its input does, however this process may have ended. It does not keep this process alive while it is idle.
 * A device that is not there fails every call with E_OPTION.
 * @throws FemoError E_OPTION if `threads` is outside its range, or no Node has the device
 */
export const createNodeEngine = (options: EngineOptions = {}): Engine => start(options, "inherit").engine;

/**
 * An engine whose device is there.
 * @throws FemoError E_OPTION if it is not, with what to do about it
 */
export async function startNodeEngine({ quiet = false, ...options }: NodeEngineOptions = {}): Promise<Engine> {
  const isCpu = (options.device ?? "auto") === "auto" || options.device === "cpu";
  const { engine, words } = start(options, isCpu && !quiet ? "inherit" : "pipe");
  if (isCpu) return engine;
  try {
    await engine.free([]);
  } catch (error) {
    await engine.close();
    if (error instanceof FemoError && error.code === "E_OPTION") throw await naming(error, words);
    if (!quiet) words?.passOn();
    throw error;
  }
  if (!quiet) words?.passOn();
  return engine;
}

/** The error, with the libraries that the device misses. */
async function naming(error: FemoError, words: NativeWords | undefined): Promise<FemoError> {
  const missing = (await words?.missingLibraries()) ?? [];
  if (missing.length === 0) return error;
  return new FemoError(error.code, `${error.message} The system does not find ${missing.join(", ")}.`);
}

/** @param stderr of the engine's process: this one's, or a pipe whose other end are the words */
function start(
  { threads, device: wanted = "auto" }: EngineOptions,
  stderr: "inherit" | "pipe",
): { readonly engine: Engine; readonly words: NativeWords | undefined } {
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= MAX_THREADS)) {
    throw new FemoError("E_OPTION", `threads: expected an integer from 1 to ${MAX_THREADS}, found ${threads}`);
  }
  if (wanted === "wasm") throw new FemoError("E_OPTION", 'device: only browsers have "wasm". In Node take "cpu"');
  const device: NodeDevice = wanted === "auto" ? "cpu" : wanted;
  const options: WorkerOptions = { threads: threads ?? 0, device };
  // NODE_OPTIONS and flags of this process, such as --input-type or --inspect, need not fit the other.
  const { NODE_OPTIONS: _, ...env } = process.env;
  const child = fork(createRequire(import.meta.url).resolve("#engine-worker"), [JSON.stringify(options)], {
    execArgv: [],
    env: { ...env, ORT_DISABLE_TELEMETRY: "1" },
    serialization: "advanced", // typed arrays as they are
    stdio: ["pipe", "ignore", stderr, "ipc"],
  });
  const lifeline = child.stdin as Socket | null;
  const ear = child.stderr as Socket | null;
  const words = ear ? new NativeWords(ear) : undefined;
  const paths = new Map<string, string>(); // of the weights in use -> fingerprint
  const calls = new Calls((id, call) => {
    child.send({ id, call });
    keepAlive(true);
  });

  const keepAlive = (alive: boolean): void => {
    for (const handle of [child, child.channel, lifeline, ear]) alive ? handle?.ref() : handle?.unref();
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

  const engine = remoteEngine(calls, {
    target: device === "webgpu" ? "gpu" : "cpu",
    device: { kind: device, title: device === "cpu" ? (cpus()[0]?.model.trim() ?? "CPU") : TITLES[device] },
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
  return { engine, words };
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
