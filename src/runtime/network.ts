import { type Bindings, countFlops, type Graph, type Shape, sizeOf } from "../graph/index.js";
import type { GraphFile, RunRequest, RunResult } from "./engine.js";
import type { GraphWriter } from "./graph-writer.js";
import type { Loadable, Sessions } from "./sessions.js";

/** An input or output of a network. */
export interface Port {
  readonly name: string;
  /** Free sizes are symbols. */
  readonly shape: Shape;
}

export interface NetworkOptions {
  /** It runs once, or hardly more; see `GraphFile`. */
  readonly once?: boolean;
}

/** A graph with its weights, loaded when it first runs: a decoder, a text encoder, a metric's network, a cut of a model. */
export class Network implements Loadable {
  readonly graph: Graph;
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  readonly bytes: number;
  readonly #sessions: Sessions;
  readonly #file: () => GraphFile;
  readonly #flops = new Map<string, number>();

  /** @param writer of the checkpoint that has its weights */
  constructor(graph: Graph, writer: GraphWriter, sessions: Sessions, { once = false }: NetworkOptions = {}) {
    const { inputs, weights } = graph.reachable();
    this.graph = graph;
    this.inputs = inputs.map(({ name, shape }) => ({ name, shape }));
    this.outputs = graph.outputs.map(({ name, value }) => ({ name, shape: value.shape }));
    this.bytes = weights.reduce((sum, { name, shape }) => {
      return sum + sizeOf(shape as readonly number[]) * writer.bytesOf(name);
    }, 0);
    this.#sessions = sessions;
    // In few bits a weight is multiplied only in an order of its own: otherwise each run expands it first.
    const isPacked = weights.some(({ name }) => writer.bytesOf(name) < Float32Array.BYTES_PER_ELEMENT);
    this.#file = () => ({ ...writer.write(graph, sessions.engine.target), once: once && !isPacked });
  }

  /** Serialises it, weights left where they lie. */
  file(): GraphFile {
    return this.#file();
  }

  run(request: RunRequest): Promise<RunResult> {
    return this.#sessions.use(this, (session) => session.run(request));
  }

  /** Runs one after the other, in one way there and back. */
  runEach(requests: readonly RunRequest[]): Promise<RunResult[]> {
    return this.#sessions.use(this, (session) => session.runEach(requests));
  }

  /** Floating-point operations of one run. @param bindings what its symbolic sizes are */
  flops(bindings: Bindings): number {
    const key = JSON.stringify(Object.entries(bindings).sort());
    let flops = this.#flops.get(key);
    if (flops === undefined) {
      flops = countFlops(this.graph, bindings);
      this.#flops.set(key, flops);
    }
    return flops;
  }

  /** Loads it ahead of its first run. */
  load(): Promise<void> {
    return this.#sessions.use(this, async () => {});
  }

  get isLoaded(): boolean {
    return this.#sessions.has(this);
  }

  /** Frees it when its last run is over; the next run loads it again. */
  release(): Promise<void> {
    return this.#sessions.release(this);
  }

  /** Frees it unless it is in use. */
  releaseIdle(): void {
    this.#sessions.releaseIdle(this);
  }
}
