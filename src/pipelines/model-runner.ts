import {
  countFlops,
  type FeatureKernel,
  type FeatureSite,
  type Granularity,
  type Graph,
  type ModelDefinition,
  names,
  type StateShape,
  stackLinears,
  type TracedGraph,
  traceConditioning,
  traceFeatureKernel,
  traceForecast,
  traceFull,
  traceStep,
  traceWhole,
} from "../graph/index.js";
import type { Engine, Feed, GraphFile, HostTensor, RunRequest, RunResult, Session } from "../runtime/engine.js";
import type { Checkpoint } from "../weights/index.js";
import type { ModelDtype, Quantize } from "./dtype.js";
import { graphWriter } from "./graph-writer.js";

/** Which graph of a model; sessions are kept by this. */
export type GraphKind =
  | { kind: "conditioning" }
  | { kind: "step" }
  | { kind: "full"; granularity: Granularity }
  | ({ kind: "forecast"; granularity: Granularity } & StateShape)
  | ({ kind: "feature" } & FeatureKernel);

/** How many graphs that hold all the weights stay loaded; another one replaces the least recently used. */
export const MAX_WHOLE_SESSIONS = 2;

/** A model with its weights, as the graphs that a request asks for: traced, written and loaded when first needed. */
export class ModelRunner {
  readonly model: ModelDefinition;
  readonly dtype: ModelDtype;
  readonly #checkpoint: Checkpoint;
  readonly #engine: Engine;
  readonly #write: (graph: Graph) => GraphFile;
  readonly #traced = new Map<string, TracedGraph & { inputs: ReadonlySet<string> }>();
  readonly #flops = new Map<string, number>();
  /** In order of use, the most recent last. */
  readonly #loaded = new Map<string, { readonly session: Promise<Session>; users: number }>();

  /**
   * @param quantized 8-bit copies of weights, used in their place
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the model's tensors; E_FILE as `graphWriter`
   */
  constructor(model: ModelDefinition, checkpoint: Checkpoint, engine: Engine, quantized?: Checkpoint) {
    this.model = model;
    this.dtype = quantized ? "int8" : "float32";
    this.#checkpoint = checkpoint;
    this.#engine = engine;
    const needed = traceWhole(model).graph.reachable().weights;
    checkpoint.verify(needed.map(({ name, shape }) => ({ name, shape: shape as readonly number[] })));
    this.#write = graphWriter(checkpoint, quantized);
  }

  /** The same model with the linear layers of its stack in 8 bits. */
  async quantized(quantize: Quantize): Promise<ModelRunner> {
    const quantized = await quantize(this.#checkpoint, stackLinears(this.model));
    return new ModelRunner(this.model, this.#checkpoint, this.#engine, quantized);
  }

  /** The graph without its weights: for counting and for the shapes of its features. */
  trace(graph: GraphKind): TracedGraph & { inputs: ReadonlySet<string> } {
    return cached(this.#traced, keyOf(graph), () => {
      const traced = traceAs(this.model, graph);
      return {
        graph: traced.graph,
        features: traced.features,
        hoisted: traced.hoisted,
        inputs: new Set(traced.graph.reachable().inputs.map((input) => input.name)),
      };
    });
  }

  features(granularity: Granularity): readonly FeatureSite[] {
    return this.trace({ kind: "full", granularity }).features;
  }

  /** Floating-point operations of one run. @param elements of one sample's feature, for a graph of any */
  flops(graph: GraphKind, batch: number, elements = 0): number {
    return cached(this.#flops, `${keyOf(graph)}:${batch}:${elements}`, () => {
      const traced = this.trace(graph);
      return countFlops(traced.graph, { batch, elements, pairs: 0, features: traced.features.length });
    });
  }

  /** Loads a graph ahead of its first run. */
  async load(graph: GraphKind): Promise<void> {
    await this.#use(graph, async () => {});
  }

  /** Runs a graph, loading it first if it is not. */
  run(graph: GraphKind, request: RunRequest): Promise<RunResult> {
    return this.#use(graph, (session) => session.run(request));
  }

  /** Runs a graph several times, one after the other. */
  runEach(graph: GraphKind, requests: readonly RunRequest[]): Promise<RunResult[]> {
    return this.#use(graph, (session) => session.runEach(requests));
  }

  /** Frees all graphs, each when its last run is over. */
  async release(): Promise<void> {
    const loaded = [...this.#loaded.values()];
    this.#loaded.clear();
    await Promise.all(loaded.map(async ({ session }) => (await session).release()));
  }

  /** Computes the tables of all hoisted parts, a row for each pair; the engine holds them for the request. */
  async condition(request: string, conditions: Readonly<Record<string, HostTensor>>): Promise<RunResult> {
    const hold = Object.fromEntries(this.#hoisted().map((name) => [name, heldTable(request, name)]));
    return this.run({ kind: "conditioning" }, { feeds: conditions, fetch: [], hold });
  }

  /** The names under which the engine holds the tables of a request. */
  conditioningNames(request: string): string[] {
    return this.#hoisted().map((name) => heldTable(request, name));
  }

  /** Feeds of a step: the sample, which row of the tables each of its rows takes, and the tables that it uses. */
  stepFeeds(
    request: string,
    graph: GraphKind,
    sample: { dims: readonly number[]; data: Float32Array },
    pairs: BigInt64Array,
  ): Record<string, Feed> {
    const { inputs, hoisted } = this.trace(graph);
    const feeds: Record<string, Feed> = {
      sample: { dtype: "float32", ...sample },
      [names.pair]: { dtype: "int64", dims: [pairs.length], data: pairs },
    };
    for (const name of hoisted) feeds[name] = { held: heldTable(request, name) };
    return Object.fromEntries(Object.entries(feeds).filter(([name]) => inputs.has(name)));
  }

  #load(graph: GraphKind): Promise<Session> {
    const once = graph.kind === "conditioning";
    return this.#engine.load({ ...this.#write(this.trace(graph).graph), once });
  }

  #hoisted(): readonly string[] {
    return this.trace({ kind: "conditioning" }).hoisted;
  }

  /** A session cannot be freed for another one while it is in use, so overlapping requests may hold more than the limit. */
  async #use<T>(graph: GraphKind, use: (session: Session) => Promise<T>): Promise<T> {
    const key = this.#serving(graph);
    const known = this.#loaded.get(key);
    if (!known && holdsAllWeights(key)) this.#trim(MAX_WHOLE_SESSIONS - 1);
    const loaded = known ?? { session: this.#load(graph), users: 0 };
    this.#loaded.delete(key); // to the end: most recently used
    this.#loaded.set(key, loaded);
    loaded.users++;
    try {
      return await use(await loaded.session);
    } catch (error) {
      await loaded.session.catch(() => this.#loaded.get(key) === loaded && this.#loaded.delete(key));
      throw error;
    } finally {
      loaded.users--;
      this.#trim(MAX_WHOLE_SESSIONS);
    }
  }

  /** Which graph runs for this one: a full step gives all that a plain one does, so the weights are not loaded twice. */
  #serving(graph: GraphKind): string {
    return (graph.kind === "step" ? this.#lastFull() : undefined) ?? keyOf(graph);
  }

  #lastFull(): string | undefined {
    return [...this.#loaded.keys()].findLast((key) => key.startsWith("full"));
  }

  /**
   * Frees whole graphs until `limit` are left, sparing those in use: first the plain step's if a full one can serve,
   * then the least recently used.
   */
  #trim(limit: number): void {
    const whole = [...this.#loaded].filter(([key]) => holdsAllWeights(key));
    const idle = whole.filter(([, { users }]) => users === 0).map(([key]) => key);
    const served = this.#lastFull() ? idle.filter((key) => key.startsWith("step")) : [];
    const order = [...new Set([...served, ...idle])];
    for (const key of order.slice(0, Math.max(served.length, whole.length - limit))) {
      const session = this.#loaded.get(key)?.session;
      this.#loaded.delete(key);
      session?.then((loaded) => loaded.release()).catch(() => {}); // what did not load need not be freed
    }
  }
}

function traceAs(model: ModelDefinition, graph: GraphKind): TracedGraph {
  switch (graph.kind) {
    case "conditioning":
      return traceConditioning(model);
    case "step":
      return traceStep(model);
    case "full":
      return traceFull(model, graph.granularity);
    case "forecast":
      return traceForecast(model, graph.granularity, graph);
    case "feature":
      return { graph: traceFeatureKernel(graph), features: [], hoisted: [] };
  }
}

const heldTable = (request: string, name: string): string => `${request}:${name}`;
const keyOf = (graph: GraphKind): string => Object.values(graph).join(":");
const holdsAllWeights = (key: string): boolean => key.startsWith("full") || key.startsWith("step");

function cached<T>(map: Map<string, T>, key: string, make: () => T): T {
  const old = map.get(key);
  if (old !== undefined) return old;
  const value = make();
  map.set(key, value);
  return value;
}
