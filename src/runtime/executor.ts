import type * as Ort from "onnxruntime-common";
import { FemoError } from "../errors.js";
import type { Feed, GraphFile, HeldDtype, HeldRows, HostTensor, RunRequest, RunResult, WeightFile } from "./engine.js";
import { gatherRows } from "./host-tensor.js";
import { hostTensor, type Memory } from "./memory.js";

/** One call to the executor: a method and its arguments, as they are sent to where it lives. */
export type Call =
  | { method: "load"; graph: GraphFile }
  | { method: "run"; session: number; requests: readonly RunRequest[] }
  | { method: "release"; session: number }
  | { method: "holdZeros"; dims: Readonly<Record<string, readonly number[]>>; dtype: HeldDtype }
  | { method: "take"; rows: Readonly<Record<string, HeldRows>> }
  | { method: "free"; names: readonly string[] };

/** What an executor asks of the place where it lives. */
export interface Host {
  readonly ort: typeof Ort;
  readonly options: Ort.InferenceSession.SessionOptions;
  /** Where held tensors live. */
  readonly memory: Memory;
  /**
   * Options of graphs that run once, where those run on the host though the others do not. Default: there is no such
   * difference, and they are loaded without optimization.
   */
  readonly once?: Ort.InferenceSession.SessionOptions;
  /** More of ONNX Runtime's session configuration, as `SessionOptions.extra.session` takes it. */
  readonly config: Readonly<Record<string, unknown>>;
  /** How ONNX Runtime finds weight files: in a folder, or as data that are passed along. @throws FemoError E_FILE */
  locate(files: readonly WeightFile[]): {
    readonly folder?: string;
    readonly externalData?: NonNullable<Ort.InferenceSession.SessionOptions["externalData"]>;
  };
  /** @throws FemoError E_FILE if one of the files is not what it was when it was opened */
  check(files: readonly WeightFile[]): void;
}

interface Loaded {
  readonly session: Ort.InferenceSession;
  readonly files: readonly WeightFile[];
  /** Held tensors have to be brought to the host for it, and what it gives from there. */
  readonly isElsewhere: boolean;
}

/** The part of the engine that lives beside ONNX Runtime: the same for Node and for a web worker. */
export class Executor {
  readonly #host: Host;
  readonly #sessions = new Map<number, Loaded>();
  readonly #held = new Map<string, Ort.Tensor>();
  #count = 0;

  constructor(host: Host) {
    this.#host = host;
  }

  async call(call: Call): Promise<unknown> {
    switch (call.method) {
      case "load":
        return this.#load(call.graph);
      case "run":
        return this.#runEach(call.session, call.requests);
      case "release":
        await this.#sessions.get(call.session)?.session.release();
        this.#sessions.delete(call.session);
        return undefined;
      case "holdZeros":
        for (const [name, dims] of Object.entries(call.dims)) await this.#holdZeros(name, dims, call.dtype);
        return undefined;
      case "take":
        return this.#take(call.rows);
      case "free":
        for (const name of call.names) this.#free(name);
        return undefined;
    }
  }

  async #load({ model, files, once }: GraphFile): Promise<number> {
    this.#host.check(files);
    const { folder, externalData } = this.#host.locate(files);
    let session: Ort.InferenceSession;
    try {
      session = await this.#host.ort.InferenceSession.create(model, {
        ...this.#host.options,
        ...(externalData && { externalData }),
        // Folding would keep a float32 copy of every half-precision weight; a single run can do without.
        ...(once && (this.#host.once ?? { graphOptimizationLevel: "disabled" as const })),
        extra: {
          session: {
            ...this.#host.config,
            ...(folder !== undefined && { model_external_initializers_file_folder_path: folder }),
            // Every session has threads of its own; those of the session before must not spin beside this one's.
            force_spinning_stop: "1",
            disable_prepacking: once ? "1" : "0",
          },
        },
      });
    } catch (cause) {
      this.#host.check(files); // says more than what the runtime makes of a file that is being written
      const size = `${model.byteLength} bytes with ${files.length} weight files`;
      const reason = messageOf(cause);
      const advice = /bad_alloc|out of memory|allocation failed/i.test(reason)
        ? " There is not enough memory: close other models, or open this one in dtype int8."
        : "";
      throw new FemoError("E_RUNTIME", `ONNX Runtime cannot load the graph (${size}): ${reason}${advice}`, { cause });
    }
    this.#sessions.set(++this.#count, { session, files, isElsewhere: once === true && this.#host.once !== undefined });
    return this.#count;
  }

  async #runEach(id: number, requests: readonly RunRequest[]): Promise<RunResult[]> {
    const loaded = this.#sessions.get(id);
    if (!loaded) throw new FemoError("E_RUNTIME", "the graph is not loaded: it was released. Load it again.");
    this.#host.check(loaded.files);
    const results: RunResult[] = [];
    for (const request of requests) results.push(await this.#run(loaded, request));
    this.#host.check(loaded.files); // weights are read where they lie, all along
    return results;
  }

  async #run({ session, isElsewhere }: Loaded, { feeds, fetch, hold = {} }: RunRequest): Promise<RunResult> {
    checkNames("input", Object.keys(feeds), session.inputNames);
    checkNames("output", [...fetch, ...Object.keys(hold)], session.outputNames);
    const held = Object.values(hold);
    const twice = held.find((name, i) => held.indexOf(name) < i);
    if (twice !== undefined) throw new FemoError("E_RUNTIME", `two outputs are to be held as "${twice}"`);

    const inputs: Record<string, Ort.Tensor> = {};
    for (const [name, feed] of Object.entries(feeds)) inputs[name] = await this.#input(name, feed, isElsewhere);
    const missing = session.inputNames.find((name) => !(name in feeds));
    if (missing !== undefined) throw new FemoError("E_RUNTIME", `input "${missing}" of the graph is not fed`);

    const wanted: Record<string, Ort.Tensor | null> = {};
    for (const output of fetch) wanted[output] = null;
    const read = new Set(Object.values(feeds).map((feed) => ("held" in feed ? feed.held : undefined)));
    for (const [output, name] of Object.entries(hold)) {
      const old = isElsewhere || read.has(name) ? undefined : this.#held.get(name);
      wanted[output] = old ? this.#host.memory.target(old) : null;
    }

    const start = performance.now();
    const results = await session.run(inputs, wanted);
    const durationMs = performance.now() - start;

    const result = (output: string): Ort.Tensor => {
      const tensor = results[output];
      if (!tensor) throw new FemoError("E_RUNTIME", `ONNX Runtime gave no output "${output}"`);
      return tensor;
    };
    const outputs: Record<string, HostTensor> = {};
    for (const output of fetch) {
      const tensor = await this.#read(`output "${output}"`, result(output));
      // What is held may be written over by a later request before this one's answer is sent.
      outputs[output] = output in hold ? { ...tensor, data: tensor.data.slice() } : tensor;
    }
    for (const [output, name] of Object.entries(hold)) {
      if (!wanted[output]) await this.#hold(name, result(output)); // others were written over
    }
    return { outputs, durationMs };
  }

  async #holdZeros(name: string, dims: readonly number[], dtype: HeldDtype): Promise<void> {
    const old = this.#held.get(name);
    this.#held.delete(name); // taken over, or freed
    const making = async () => this.#host.memory.zeros(dtype, dims, old);
    this.#held.set(name, await made(`cannot hold "${name}", [${dims.join(", ")}]`, making));
  }

  async #take(wanted: Readonly<Record<string, HeldRows>>): Promise<void> {
    const taken: [string, Ort.Tensor][] = [];
    for (const [name, { from, rows }] of Object.entries(wanted)) {
      const held = await this.#read(`"${from}"`, this.#find(from));
      const { dims } = held;
      const [count = 0] = dims;
      const unknown = rows.find((at) => !(Number.isInteger(at) && at >= 0 && at < count));
      if (unknown !== undefined) {
        throw new FemoError("E_RUNTIME", `"${from}", [${dims.join(", ")}], has ${count} rows and no row ${unknown}`);
      }
      taken.push([name, await this.#hostTensor(name, gatherRows(held, rows))]);
    }
    for (const [name, tensor] of taken) await this.#hold(name, tensor);
  }

  async #hold(name: string, tensor: Ort.Tensor): Promise<void> {
    const kept = await this.#host.memory.keep(tensor);
    this.#free(name);
    this.#held.set(name, kept);
  }

  #free(name: string): void {
    const held = this.#held.get(name);
    if (held) this.#host.memory.free(held); // on a device, nothing else frees it
    this.#held.delete(name);
  }

  #find(name: string): Ort.Tensor {
    const tensor = this.#held.get(name);
    if (!tensor) throw new FemoError("E_RUNTIME", `no tensor is held as "${name}"`);
    return tensor;
  }

  #read(name: string, tensor: Ort.Tensor): Promise<HostTensor> {
    return tensor.location === "cpu" ? hostTensor(name, tensor) : this.#host.memory.read(name, tensor);
  }

  /** @param name in messages */
  async #input(name: string, feed: Feed, onHost: boolean): Promise<Ort.Tensor> {
    if (!("held" in feed)) return this.#hostTensor(name, feed);
    const tensor = this.#find(feed.held);
    const { dims = tensor.dims } = feed;
    if (onHost) return this.#hostTensor(name, { ...(await this.#read(`"${feed.held}"`, tensor)), dims });
    const view = async () => this.#host.memory.view(tensor, feed.dims);
    return made(`"${name}": "${feed.held}" as [${dims.join(", ")}]`, view);
  }

  /** @param name in messages */
  #hostTensor(name: string, { dtype, dims, data }: HostTensor): Promise<Ort.Tensor> {
    const make = async () => new this.#host.ort.Tensor(dtype, data as Float32Array, dims);
    return made(`"${name}", ${dtype} [${dims.join(", ")}]`, make);
  }
}

function checkNames(kind: "input" | "output", wanted: readonly string[], known: readonly string[]): void {
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  const names = known.map((name) => `"${name}"`).join(", ");
  throw new FemoError("E_RUNTIME", `the graph has no ${kind} "${unknown}", only ${names || "none"}`);
}

/** Names what was being made in the error of a library that does not. */
async function made<T>(what: string, make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (cause) {
    throw new FemoError("E_RUNTIME", `${what}: ${messageOf(cause)}`, { cause });
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
