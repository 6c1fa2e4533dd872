import { FemoError } from "../errors.js";
import { type Bindings, bindShape } from "../graph/index.js";
import type { RunRequest, RunResult } from "../runtime/engine.js";
import { graphWriter } from "../runtime/graph-writer.js";
import { Network, type WriteGraph } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import {
  type Cut,
  canonical,
  computesAll,
  type FeatureKernel,
  type Input,
  type Model,
  sampleOf,
  stackLinears,
  type TracedGraph,
  traceCut,
  traceFeatureKernel,
} from "../tracing/index.js";
import type { Checkpoint } from "../weights/index.js";
import type { ModelDtype, Quantize } from "./dtype.js";

/** A graph of a model, and what its tracing found. */
export interface CutNetwork extends Omit<TracedGraph, "graph"> {
  readonly network: Network;
  readonly inputs: ReadonlySet<string>;
}

/** A model with its weights, as the graphs that are asked for: each traced once, and loaded when it first runs. */
export class Backbone {
  readonly model: Model;
  readonly dtype: ModelDtype;
  readonly sessions: Sessions;
  readonly #checkpoint: Checkpoint;
  readonly #write: WriteGraph;
  readonly #quantized: Checkpoint | undefined;
  readonly #networks = new Map<string, CutNetwork>();
  readonly #kernels = new Map<string, Network>();
  /** Graphs that compute everything and give features out, the most recently used last. */
  #full: readonly Network[] = [];

  /**
   * @param quantized 8-bit copies of weights, used in their place
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the model's tensors; E_FILE as `graphWriter`
   */
  constructor(model: Model, checkpoint: Checkpoint, sessions: Sessions, quantized?: Checkpoint) {
    this.model = model;
    this.dtype = quantized ? "int8" : "float32";
    this.sessions = sessions;
    this.#checkpoint = checkpoint;
    this.#quantized = quantized;
    const needed = traceCut(model, { hoisted: "inline" }).graph.reachable().weights;
    checkpoint.verify(needed.map(({ name, shape }) => ({ name, shape: shape as readonly number[] })));
    this.#write = graphWriter(checkpoint, quantized);
  }

  /** The same model with the linear layers of its stack in 8 bits. */
  async inInt8(quantize: Quantize): Promise<Backbone> {
    const quantized = await quantize(this.#checkpoint, stackLinears(this.model));
    return new Backbone(this.model, this.#checkpoint, this.sessions, quantized);
  }

  /** The input that changes with every step. */
  get sample(): Input {
    return sampleOf(this.model);
  }

  /** Shape of one image's sample. @param sizes what its symbols are */
  sampleDims(sizes: Bindings): number[] {
    return bindShape(this.sample.shape, sizes);
  }

  /**
   * The graph that a cut describes.
   * @throws FemoError E_OPTION if it corrects what was kept, for which it takes rows of weights, and these are in 8 bits
   */
  cut(cut: Cut): CutNetwork {
    if (cut.sparse && this.dtype === "int8") {
      throw new FemoError(
        "E_OPTION",
        'cache: sparse steps take rows of the weights: expected dtype "float32", found "int8"',
      );
    }
    return cached(this.#networks, canonical(cut), () => {
      const { graph, ...traced } = traceCut(this.model, cut);
      const network = new Network(graph, this.#write, this.sessions, {
        once: cut.hoisted === "pair" || cut.hoisted === "condition",
        bytesOf: (weight) => (this.#quantized?.get(weight) ? 1 : Float32Array.BYTES_PER_ELEMENT),
      });
      return { network, ...traced, inputs: new Set(network.inputs.map(({ name }) => name)) };
    });
  }

  /** What moves the state of a feature after a full step. */
  kernel(kernel: FeatureKernel): Network {
    return cached(this.#kernels, canonical(kernel), () => {
      return new Network(traceFeatureKernel(kernel), this.#write, this.sessions);
    });
  }

  /** Loads a graph ahead of its first run. */
  async load(cut: Cut): Promise<void> {
    await this.#serving(cut).load();
  }

  /** Runs a graph, loading it first if it is not. */
  run(cut: Cut, request: RunRequest): Promise<RunResult> {
    return this.#serving(cut).run(request);
  }

  /**
   * Which graph runs for this one: a full step that gives out its features gives all that a plain one does, so the
   * weights are not loaded twice.
   */
  #serving(cut: Cut): Network {
    const { network } = this.cut(cut);
    if (canonical(cut) === PLAIN) return this.#full.findLast(({ isLoaded }) => isLoaded) ?? network;
    if (cut.capture && computesAll(cut) && !cut.from && !cut.to) {
      this.#full = [...this.#full.filter((other) => other !== network), network];
      this.cut({}).network.releaseIdle();
    }
    return network;
  }
}

const PLAIN = canonical({});

function cached<T>(map: Map<string, T>, key: string, make: () => T): T {
  const old = map.get(key);
  if (old !== undefined) return old;
  const value = make();
  map.set(key, value);
  return value;
}
