import type * as Ort from "onnxruntime-common";
import { FemoError } from "../errors.js";
import { sizeOf } from "../graph/shape.js";
import type { Feed, GraphFile, HeldDtype, HeldRows, HostTensor, RunRequest, RunResult, WeightFile } from "./engine.js";
import { ARRAYS, gatherRows } from "./host-tensor.js";

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
        for (const [name, dims] of Object.entries(call.dims)) this.#holdZeros(name, dims, call.dtype);
        return undefined;
      case "take":
        return this.#take(call.rows);
      case "free":
        for (const name of call.names) {
          this.#held.get(name)?.dispose(); // on a device, nothing else frees it
          this.#held.delete(name);
        }
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
        ...(once && { graphOptimizationLevel: "disabled" as const }),
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
      throw new FemoError("E_RUNTIME", `ONNX Runtime cannot load the graph (${size}): ${messageOf(cause)}`, { cause });
    }
    this.#sessions.set(++this.#count, { session, files });
    return this.#count;
  }

  async #runEach(id: number, requests: readonly RunRequest[]): Promise<RunResult[]> {
    const loaded = this.#sessions.get(id);
    if (!loaded) throw new FemoError("E_RUNTIME", "the graph is not loaded: it was released. Load it again.");
    this.#host.check(loaded.files);
    const results: RunResult[] = [];
    for (const request of requests) results.push(await this.#run(loaded.session, request));
    this.#host.check(loaded.files); // weights are read where they lie, all along
    return results;
  }

  async #run(session: Ort.InferenceSession, { feeds, fetch, hold = {} }: RunRequest): Promise<RunResult> {
    checkNames("input", Object.keys(feeds), session.inputNames);
    checkNames("output", [...fetch, ...Object.keys(hold)], session.outputNames);
    const held = Object.values(hold);
    const twice = held.find((name, i) => held.indexOf(name) < i);
    if (twice !== undefined) throw new FemoError("E_RUNTIME", `two outputs are to be held as "${twice}"`);

    const inputs = Object.fromEntries(Object.entries(feeds).map(([name, feed]) => [name, this.#tensor(name, feed)]));
    const missing = session.inputNames.find((name) => !(name in feeds));
    if (missing !== undefined) throw new FemoError("E_RUNTIME", `input "${missing}" of the graph is not fed`);

    const wanted: Record<string, Ort.Tensor | null> = {};
    for (const output of fetch) wanted[output] = null;
    const read = new Set(Object.values(feeds).map((feed) => ("held" in feed ? feed.held : undefined)));
    for (const [output, name] of Object.entries(hold)) {
      wanted[output] = read.has(name) ? null : (this.#held.get(name) ?? null);
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
      const tensor = await onHost(`output "${output}"`, result(output));
      // What is held may be written over by a later request before this one's answer is sent.
      outputs[output] = output in hold ? { ...tensor, data: tensor.data.slice() } : tensor;
    }
    for (const [output, name] of Object.entries(hold)) {
      if (!wanted[output]) this.#hold(name, result(output)); // others were written over
    }
    return { outputs, durationMs };
  }

  #holdZeros(name: string, dims: readonly number[], dtype: HeldDtype): void {
    const old = this.#held.get(name);
    if (old?.location === "cpu" && old.type === dtype && old.dims.join() === dims.join()) {
      (old.data as Float32Array | Uint16Array).fill(0);
      return;
    }
    const zeros = () => new this.#host.ort.Tensor(dtype, new ARRAYS[dtype](sizeOf(dims)) as Float32Array, dims);
    this.#hold(name, making(`cannot hold "${name}", [${dims.join(", ")}]`, zeros));
  }

  async #take(wanted: Readonly<Record<string, HeldRows>>): Promise<void> {
    const taken: [string, Ort.Tensor][] = [];
    for (const [name, { from, rows }] of Object.entries(wanted)) {
      const held = await onHost(`"${from}"`, this.#find(from));
      const { dims } = held;
      const [count = 0] = dims;
      const unknown = rows.find((at) => !(Number.isInteger(at) && at >= 0 && at < count));
      if (unknown !== undefined) {
        throw new FemoError("E_RUNTIME", `"${from}", [${dims.join(", ")}], has ${count} rows and no row ${unknown}`);
      }
      taken.push([name, this.#tensor(name, gatherRows(held, rows))]);
    }
    for (const [name, tensor] of taken) this.#hold(name, tensor);
  }

  #hold(name: string, tensor: Ort.Tensor): void {
    this.#held.get(name)?.dispose();
    this.#held.set(name, tensor);
  }

  #find(name: string): Ort.Tensor {
    const tensor = this.#held.get(name);
    if (!tensor) throw new FemoError("E_RUNTIME", `no tensor is held as "${name}"`);
    return tensor;
  }

  /** @param name in messages */
  #tensor(name: string, feed: Feed): Ort.Tensor {
    if ("held" in feed) {
      const tensor = this.#find(feed.held);
      const { dims } = feed;
      return dims ? making(`"${name}": "${feed.held}" as [${dims.join(", ")}]`, () => tensor.reshape(dims)) : tensor;
    }
    const { dtype, dims, data } = feed;
    const make = () => new this.#host.ort.Tensor(dtype, data as Float32Array, dims);
    return making(`"${name}", ${dtype} [${dims.join(", ")}]`, make);
  }
}

function checkNames(kind: "input" | "output", wanted: readonly string[], known: readonly string[]): void {
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  const names = known.map((name) => `"${name}"`).join(", ");
  throw new FemoError("E_RUNTIME", `the graph has no ${kind} "${unknown}", only ${names || "none"}`);
}

/** A tensor's elements, fetched from its device if it is on one. @param name in messages */
async function onHost(name: string, tensor: Ort.Tensor): Promise<HostTensor> {
  const { type, dims } = tensor;
  const data = await tensor.getData();
  if (type === "float32" && data instanceof Float32Array) return { dtype: type, dims, data };
  // Where the language has an array for it, the runtime uses that.
  if (type === "float16" && "buffer" in data) {
    return { dtype: type, dims, data: new Uint16Array(data.buffer, data.byteOffset, data.length) };
  }
  if (type === "int64" && data instanceof BigInt64Array) return { dtype: type, dims, data };
  throw new FemoError("E_RUNTIME", `${name}: expected float32, float16 or int64, found ${type}. Cast it in the graph.`);
}

/** Names what was being made in the error of a library that does not. */
function making<T>(what: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw new FemoError("E_RUNTIME", `${what}: ${messageOf(cause)}`, { cause });
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
