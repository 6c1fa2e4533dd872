import { FemoError } from "../errors.js";
import {
  countFlops,
  type FeatureSite,
  type Granularity,
  type ModelDefinition,
  type TracedGraph,
  toOnnx,
  traceConditioning,
  traceForecast,
  traceFull,
  traceStep,
  traceWhole,
} from "../graph/index.js";
import { names } from "../graph/trace.js";
import type { Engine, Feed, HostTensor, RunResult, Session } from "../runtime/engine.js";
import type { Checkpoint, TensorInfo } from "../weights/index.js";

/** Which graph of a model; sessions are kept by this. */
export type GraphKind =
  | { kind: "conditioning" }
  | { kind: "step" }
  | { kind: "full"; granularity: Granularity; measure: boolean }
  | { kind: "forecast"; granularity: Granularity };

/** How many graphs that hold all the weights stay loaded; another one replaces the least recently used. */
const MAX_WHOLE_SESSIONS = 2;

/** A model with its weights, as the graphs that a request asks for: traced, written and loaded when first needed. */
export class ModelRunner {
  readonly model: ModelDefinition;
  readonly #engine: Engine;
  readonly #locate: (tensor: string) => (TensorInfo & { file: string }) | undefined;
  readonly #weightsFolder: string;
  readonly #traced = new Map<string, TracedGraph>();
  readonly #sessions = new Map<string, Promise<Session>>();

  /**
   * @throws FemoError E_WEIGHT if the checkpoint does not have exactly the model's tensors
   */
  constructor(model: ModelDefinition, checkpoint: Checkpoint, engine: Engine) {
    this.model = model;
    this.#engine = engine;
    const needed = traceWhole(model).graph.reachable().weights;
    checkpoint.verify(needed.map(({ name, shape }) => ({ name, shape: shape as readonly number[] })));
    const folders = new Set(checkpoint.tensors().map(({ file }) => folderOf(file)));
    if (folders.size !== 1) {
      throw new FemoError(
        "E_FILE",
        `${checkpoint.name}: its files must lie in one folder, found ${[...folders].join(", ")}. Copy them together.`,
      );
    }
    this.#weightsFolder = [...folders][0] as string;
    this.#locate = (name) => {
      const tensor = checkpoint.get(name);
      return tensor && { ...tensor, file: tensor.file.slice(this.#weightsFolder.length + 1) };
    };
  }

  /** The graph without its weights: for counting and for the shapes of its features. */
  trace(graph: GraphKind): TracedGraph {
    return cached(this.#traced, keyOf(graph), () => {
      switch (graph.kind) {
        case "conditioning":
          return traceConditioning(this.model);
        case "step":
          return traceStep(this.model);
        case "full":
          return traceFull(this.model, graph.granularity, graph.measure);
        case "forecast":
          return traceForecast(this.model, graph.granularity);
      }
    });
  }

  features(granularity: Granularity): readonly FeatureSite[] {
    return this.trace({ kind: "forecast", granularity }).features;
  }

  /** Floating-point operations of one run. @param rows k, the tensors a feature's state has */
  flops(graph: GraphKind, batch: number, rows = 0): number {
    const traced = this.trace(graph);
    return countFlops(traced.graph, { batch, rows, pairs: 0, features: traced.features.length });
  }

  /** Loads a graph ahead of its first run. */
  async load(graph: GraphKind): Promise<Session> {
    const key = keyOf(graph);
    const loaded = this.#sessions.get(key);
    if (loaded) {
      this.#sessions.delete(key); // to the end: most recently used
      this.#sessions.set(key, loaded);
      return loaded;
    }
    if (holdsAllWeights(key)) await this.#makeRoom();
    const session = this.#engine.load({
      model: toOnnx(this.trace(graph).graph, this.#locate as Parameters<typeof toOnnx>[1]),
      weightsFolder: this.#weightsFolder,
    });
    session.catch(() => this.#sessions.delete(key));
    this.#sessions.set(key, session);
    return session;
  }

  /** Frees the graphs loaded so far. */
  async release(): Promise<void> {
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    await Promise.all(sessions.map(async (session) => (await session).release()));
  }

  /** The tables of all hoisted parts, a row for each pair, held by the engine under `${request}:${name}`. */
  async condition(
    request: string,
    conditions: Readonly<Record<string, HostTensor>>,
  ): Promise<RunResult & { held: string[] }> {
    const graph = { kind: "conditioning" } as const;
    const session = await this.load(graph);
    const hold = Object.fromEntries(this.trace(graph).hoisted.map((name) => [name, `${request}:${name}`]));
    const result = await session.run({ feeds: conditions, fetch: [], hold });
    return { ...result, held: Object.values(hold) };
  }

  /** Feeds of a step: the sample, the hoisted tables it uses and the state of its features. */
  stepFeeds(request: string, graph: GraphKind, sample: HostTensor, pair: HostTensor): Record<string, Feed> {
    const { graph: traced, features, hoisted } = this.trace(graph);
    const used = new Set(traced.reachable().inputs.map((input) => input.name));
    const feeds: Record<string, Feed> = {};
    if (used.has("sample")) feeds.sample = sample;
    if (used.has(names.pair)) feeds[names.pair] = pair;
    for (const name of hoisted) if (used.has(name)) feeds[name] = { held: `${request}:${name}` };
    for (const { name } of features) feeds[names.state(name)] = { held: `${request}:${names.state(name)}` };
    return feeds;
  }

  async #makeRoom(): Promise<void> {
    const whole = [...this.#sessions.keys()].filter(holdsAllWeights);
    for (const key of whole.slice(0, Math.max(0, whole.length - MAX_WHOLE_SESSIONS + 1))) {
      const session = this.#sessions.get(key);
      this.#sessions.delete(key);
      await (await session)?.release();
    }
  }
}

const keyOf = (graph: GraphKind): string => Object.values(graph).join(":");
const holdsAllWeights = (key: string): boolean => key.startsWith("full") || key.startsWith("step");
const folderOf = (file: string): string => file.slice(0, Math.max(file.lastIndexOf("/"), file.lastIndexOf("\\")));

function cached<T>(map: Map<string, T>, key: string, make: () => T): T {
  const old = map.get(key);
  if (old !== undefined) return old;
  const value = make();
  map.set(key, value);
  return value;
}
