import type * as Ort from "onnxruntime-common";
import type { Feed, GraphFile, HostTensor, RunRequest, RunResult } from "./engine.js";

/** One call to the executor: a method and its arguments, as they cross the thread. */
export type Call =
  | { method: "load"; graph: GraphFile }
  | { method: "run"; session: number; requests: readonly RunRequest[] }
  | { method: "release"; session: number }
  | { method: "holdZeros"; dims: Readonly<Record<string, readonly number[]>> }
  | { method: "free"; names: readonly string[] };

/** The part of the engine that lives beside ONNX Runtime: the same in a Node worker and in a web worker. */
export class Executor {
  readonly #ort: typeof Ort;
  readonly #options: Ort.InferenceSession.SessionOptions;
  readonly #sessions = new Map<number, Ort.InferenceSession>();
  readonly #held = new Map<string, Ort.Tensor>();
  #count = 0;

  constructor(ort: typeof Ort, options: Ort.InferenceSession.SessionOptions) {
    this.#ort = ort;
    this.#options = options;
  }

  async call(call: Call): Promise<unknown> {
    switch (call.method) {
      case "load":
        return this.#load(call.graph);
      case "run":
        return this.#runEach(call.session, call.requests);
      case "release":
        await this.#sessions.get(call.session)?.release();
        this.#sessions.delete(call.session);
        return undefined;
      case "holdZeros":
        for (const [name, dims] of Object.entries(call.dims)) this.#holdZeros(name, dims);
        return undefined;
      case "free":
        for (const name of call.names) this.#held.delete(name);
        return undefined;
    }
  }

  async #load({ model, weightsFolder, once }: GraphFile): Promise<number> {
    const session = await this.#ort.InferenceSession.create(model, {
      ...this.#options,
      // Folding would keep a float32 copy of every half-precision weight; a single run can do without.
      ...(once && { graphOptimizationLevel: "disabled" as const }),
      extra: {
        session: {
          model_external_initializers_file_folder_path: weightsFolder,
          // Every session has threads of its own; those of the session before must not spin beside this one's.
          force_spinning_stop: "1",
          disable_prepacking: once ? "1" : "0",
        },
      },
    });
    this.#sessions.set(++this.#count, session);
    return this.#count;
  }

  async #runEach(id: number, requests: readonly RunRequest[]): Promise<RunResult[]> {
    const session = this.#sessions.get(id);
    if (!session) throw new Error(`session ${id} is not loaded`);
    const results: RunResult[] = [];
    for (const request of requests) results.push(await this.#run(session, request));
    return results;
  }

  async #run(session: Ort.InferenceSession, { feeds, fetch, hold = {} }: RunRequest): Promise<RunResult> {
    const inputs = Object.fromEntries(Object.entries(feeds).map(([name, feed]) => [name, this.#tensor(feed)]));
    const wanted: Record<string, Ort.Tensor | null> = {};
    for (const output of fetch) wanted[output] = null;
    const read = new Set(Object.values(feeds).map((feed) => ("held" in feed ? feed.held : undefined)));
    for (const [output, name] of Object.entries(hold)) {
      wanted[output] = read.has(name) ? null : (this.#held.get(name) ?? null);
    }

    const start = performance.now();
    const results = await session.run(inputs, wanted);
    const durationMs = performance.now() - start;

    for (const [output, name] of Object.entries(hold)) this.#held.set(name, results[output] as Ort.Tensor);
    const outputs: Record<string, HostTensor> = {};
    for (const output of fetch) {
      const { type, dims, data } = results[output] as Ort.Tensor;
      outputs[output] = { dtype: type as HostTensor["dtype"], dims, data: data as HostTensor["data"] };
    }
    return { outputs, durationMs };
  }

  #holdZeros(name: string, dims: readonly number[]): void {
    const old = this.#held.get(name);
    if (old && old.dims.join() === dims.join()) {
      (old.data as Float32Array).fill(0);
      return;
    }
    const size = dims.reduce((a, b) => a * b, 1);
    this.#held.set(name, new this.#ort.Tensor("float32", new Float32Array(size), dims));
  }

  #tensor(feed: Feed): Ort.Tensor {
    if (!("held" in feed)) return new this.#ort.Tensor(feed.dtype, feed.data as Float32Array, feed.dims);
    const tensor = this.#held.get(feed.held);
    if (!tensor) throw new Error(`no tensor is held as "${feed.held}"`);
    return feed.dims ? tensor.reshape(feed.dims) : tensor;
  }
}
