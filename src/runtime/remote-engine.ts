import { FemoError, type FemoErrorCode } from "../errors.js";
import type { Engine, RunRequest, RunResult, WeightFile } from "./engine.js";
import type { Call, Executor } from "./executor.js";

/** What an executor answers to a call. */
export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly code: FemoErrorCode; readonly error: string };

interface Pending {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** The calls that are on their way to an executor elsewhere: in another process, in a worker. */
export class Calls {
  readonly #send: (id: number, call: Call) => void;
  readonly #pending = new Map<number, Pending>();
  #count = 0;
  #ended: FemoError | undefined;

  /** @param send hands a call on; what answers it goes to `settle` */
  constructor(send: (id: number, call: Call) => void) {
    this.#send = send;
  }

  /** Whether none is under way. */
  get isIdle(): boolean {
    return this.#pending.size === 0;
  }

  get hasEnded(): boolean {
    return this.#ended !== undefined;
  }

  call<T>(call: Call): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#ended) return reject(this.#ended);
      const id = ++this.#count;
      this.#pending.set(id, { resolve: resolve as Pending["resolve"], reject });
      this.#send(id, call);
    });
  }

  settle(answer: Answer): void {
    const call = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if ("error" in answer) call?.reject(new FemoError(answer.code, answer.error));
    else call?.resolve(answer.value);
  }

  /** Nothing answers any more: all calls, those to come too, fail with the first reason that was given. */
  end(error: FemoError): void {
    this.#ended ??= error;
    for (const call of this.#pending.values()) call.reject(this.#ended);
    this.#pending.clear();
  }
}

/**
 * An engine whose executor is elsewhere.
 * @param files makes weight files into what can be sent there
 */
export function remoteEngine(
  calls: Calls,
  rest: Pick<Engine, "target" | "device" | "close"> & {
    files(files: readonly WeightFile[]): readonly WeightFile[] | Promise<readonly WeightFile[]>;
  },
): Engine {
  const { files, target, device, close } = rest;
  return {
    target,
    device,
    async load(graph) {
      const session = await calls.call<number>({
        method: "load",
        graph: { ...graph, files: await files(graph.files) },
      });
      const runEach = (requests: readonly RunRequest[]) =>
        calls.call<RunResult[]>({ method: "run", session, requests });
      return {
        run: async (request) => (await runEach([request]))[0] as RunResult,
        runEach,
        release: () => calls.call<void>({ method: "release", session }),
      };
    },
    holdZeros: (dims, dtype = "float32") => calls.call<void>({ method: "holdZeros", dims, dtype }),
    take: (rows) => calls.call<void>({ method: "take", rows }),
    free: (names) => calls.call<void>({ method: "free", names }),
    close,
  };
}

/** Answers calls one after the other, in their order. */
export function answering(executor: Executor): (id: number, call: Call) => Promise<Answer> {
  let queue: Promise<unknown> = Promise.resolve();
  return (id, call) => {
    const answer = queue.then(async (): Promise<Answer> => {
      try {
        return { id, value: await executor.call(call) };
      } catch (error) {
        if (error instanceof FemoError) return { id, code: error.code, error: error.message };
        const message = error instanceof Error ? error.message : String(error);
        return { id, code: "E_RUNTIME", error: `ONNX Runtime: ${message}` };
      }
    });
    queue = answer;
    return answer;
  };
}
