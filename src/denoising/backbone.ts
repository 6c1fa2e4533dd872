import { FemoError } from "../errors.js";
import { type Bindings, bindShape } from "../graph/index.js";
import { type Method, X0 } from "../methods/index.js";
import type { RunRequest, RunResult } from "../runtime/engine.js";
import { type GraphWriter, graphWriter } from "../runtime/graph-writer.js";
import { Network } from "../runtime/network.js";
import type { Sessions } from "../runtime/sessions.js";
import {
  type Cut,
  canonical,
  computesAll,
  type FeatureKernel,
  type Input,
  type Linears,
  type Model,
  sampleOf,
  type TracedGraph,
  traceCut,
  traceFeatureKernel,
} from "../tracing/index.js";
import { type Checkpoint, isPacked } from "../weights/index.js";
import { type Keep, type ModelDtype, precisionOf, weightsIn } from "./dtype.js";

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
  readonly #writer: GraphWriter;
  readonly #networks = new Map<string, CutNetwork>();
  readonly #kernels = new Map<string, Network>();
  readonly #sized = new Map<string, Backbone>();
  /** Graphs that compute everything and give features out, the most recently used last. */
  #full: readonly Network[] = [];

  /**
   * @param dtype of the checkpoint's weights, if they were changed for one
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the model's tensors; E_FILE as `graphWriter`
   */
  constructor(model: Model, checkpoint: Checkpoint, sessions: Sessions, dtype: ModelDtype = "float32") {
    this.model = model;
    this.dtype = dtype;
    this.sessions = sessions;
    this.#checkpoint = checkpoint;
    const needed = traceCut(model, { hoisted: "inline" }).graph.reachable().weights;
    checkpoint.verify(needed.map(({ name, shape }) => ({ name, shape: shape as readonly number[] })));
    this.#writer = graphWriter(checkpoint, precisionOf(dtype));
  }

  /**
   * The same model, in another type (`weightsIn`), its weights in files.
   * @param linears the model's (`modelLinears`)
   * @throws FemoError as `Keep`
   */
  async in(dtype: ModelDtype, keep: Keep, linears: () => Linears): Promise<Backbone> {
    const weights = await keep(weightsIn(dtype, this.#checkpoint, linears));
    return weights === this.#checkpoint && dtype === this.dtype
      ? this
      : new Backbone(this.model, weights, this.sessions, dtype);
  }

  /**
   * What runs a method on images of one size: this, or, where the method's graphs must know sizes, a backbone for that
   * size, whose weights are loaded on their own.
   */
  forMethod({ cuts }: Pick<Method, "cuts">, sizes: Bindings): Backbone {
    const isSparse = Object.values(cuts).some((cut) => cut !== X0 && cut.sparse);
    if (!isSparse || !this.model.sized) return this;
    const model = this.model.sized(sizes);
    return cached(
      this.#sized,
      canonical(sizes),
      () => new Backbone(model, this.#checkpoint, this.sessions, this.dtype),
    );
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
   * @throws FemoError E_OPTION if it corrects what was kept, for which it takes rows of weights, and these are in few bits
   */
  cut(cut: Cut): CutNetwork {
    if (cut.sparse && this.#checkpoint.tensors().some(isPacked)) {
      const found = this.dtype === "float32" ? "a file with weights in few bits" : `"${this.dtype}"`;
      throw new FemoError(
        "E_OPTION",
        `cache: sparse steps take rows of the weights: expected dtype "float32", found ${found}`,
      );
    }
    return cached(this.#networks, canonical(cut), () => {
      const { graph, ...traced } = traceCut(this.model, cut);
      const network = new Network(graph, this.#writer, this.sessions, {
        once: cut.hoisted === "pair" || cut.hoisted === "condition",
      });
      return { network, ...traced, inputs: new Set(network.inputs.map(({ name }) => name)) };
    });
  }

  /** What moves the state of a feature after a full step. */
  kernel(kernel: FeatureKernel): Network {
    return cached(this.#kernels, canonical(kernel), () => {
      return new Network(traceFeatureKernel(kernel), this.#writer, this.sessions);
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
