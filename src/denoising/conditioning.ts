import { type Bindings, bindShape, type Shape } from "../graph/index.js";
import type { Feed, HostTensor } from "../runtime/engine.js";
import { gatherRows } from "../runtime/host-tensor.js";
import { type Cut, canonical, graphNames } from "../tracing/index.js";
import type { Backbone } from "./backbone.js";
import { conditioningFlops } from "./flops.js";

/** The distinct conditions of a request, a row each: of every input of the model that varies with the condition. */
export interface Conditions {
  readonly count: number;
  readonly feeds: Readonly<Record<string, HostTensor>>;
}

/**
 * All that a model makes of timesteps and conditions, computed for all steps before the first. The engine holds it as
 * tables under the name of the request; row p of the tables of pairs is that of step floor(p / conditions).
 */
export class Conditioning {
  /** Time in the runtime, milliseconds. */
  durationMs = 0;
  /** Floating-point operations. */
  flops = 0;
  readonly #backbone: Backbone;
  readonly #request: string;
  readonly #timesteps: readonly number[];
  readonly #conditions: Conditions;
  readonly #ofSizes = new Map<string, HostTensor>();

  private constructor(backbone: Backbone, request: string, timesteps: readonly number[], conditions: Conditions) {
    this.#backbone = backbone;
    this.#request = request;
    this.#timesteps = timesteps;
    this.#conditions = conditions;
  }

  /**
   * @param request prefix of the names under which the engine holds the tables
   * @param sizes what the symbols of the conditions' shapes are
   */
  static async compute(
    backbone: Backbone,
    request: string,
    timesteps: readonly number[],
    conditions: Conditions,
    sizes: Bindings = {},
  ): Promise<Conditioning> {
    const conditioning = new Conditioning(backbone, request, timesteps, conditions);
    try {
      await conditioning.#compute(sizes);
    } catch (error) {
      await conditioning.free().catch(() => {}); // an engine that is closed holds nothing
      throw error;
    }
    return conditioning;
  }

  async #compute(sizes: Bindings): Promise<void> {
    const conditions = this.#conditions;
    const pairs = this.#timesteps.flatMap((timestep) =>
      Array.from({ length: conditions.count }, (_, condition) => ({ timestep, condition })),
    );
    const rowsOf = { pair: pairs.map(({ condition }) => condition), condition: [...Array(conditions.count).keys()] };
    for (const hoisted of ["condition", "pair"] as const) {
      const { network, hoisted: tables, inputs } = this.#backbone.cut({ hoisted });
      if (tables.length === 0) continue;
      const feeds: Record<string, Feed> = {};
      for (const { name, varies, shape, values } of this.#backbone.model.inputs) {
        if (!inputs.has(name)) continue;
        if (values) feeds[name] = this.#sized(name, shape, sizes, values);
        else if (varies === "timestep") {
          const data = Float32Array.from(pairs, ({ timestep }) => timestep);
          feeds[name] = { dtype: "float32", dims: [pairs.length], data };
        } else feeds[name] = gatherRows(conditionFeed(conditions, name), rowsOf[hoisted]);
      }
      const hold = Object.fromEntries(tables.map((table) => [table, heldTable(this.#request, table)]));
      const { durationMs } = await network.run({ feeds, fetch: [], hold });
      this.durationMs += durationMs;
    }
    this.flops = conditioningFlops(this.#backbone, this.#timesteps.length, conditions.count, sizes);
  }

  /**
   * What a step's graph takes of it.
   * @param rows the condition of each row of the batch
   * @param sizes of the images of the batch
   */
  feeds(cut: Cut, step: number, rows: readonly number[], sizes: Bindings): Record<string, Feed> {
    const { hoisted, inputs } = this.#backbone.cut(cut);
    const { count } = this.#conditions;
    const feeds: Record<string, Feed> = {};
    if (inputs.has(graphNames.pair))
      feeds[graphNames.pair] = integers(rows.map((condition) => step * count + condition));
    if (inputs.has(graphNames.condition)) feeds[graphNames.condition] = integers(rows);
    for (const table of hoisted) if (inputs.has(table)) feeds[table] = { held: heldTable(this.#request, table) };
    for (const { name, varies, shape, values } of this.#backbone.model.inputs) {
      if (!inputs.has(name) || varies === "step") continue;
      if (varies === "condition") feeds[name] = conditionFeed(this.#conditions, name);
      if (varies === "timestep") {
        const data = Float32Array.from(this.#timesteps.flatMap((t) => new Array<number>(count).fill(t)));
        feeds[name] = { dtype: "float32", dims: [data.length], data };
      }
      if (values) feeds[name] = this.#sized(name, shape, sizes, values);
    }
    return feeds;
  }

  /** What follows from sizes is made once for each. */
  #sized(name: string, shape: Shape, sizes: Bindings, values: (sizes: Bindings) => Float32Array): HostTensor {
    const key = `${name} ${canonical(sizes)}`;
    const known = this.#ofSizes.get(key);
    if (known) return known;
    const tensor: HostTensor = { dtype: "float32", dims: bindShape(shape, sizes), data: values(sizes) };
    this.#ofSizes.set(key, tensor);
    return tensor;
  }

  /** Frees the tables. */
  async free(): Promise<void> {
    const tables = (["pair", "condition"] as const).flatMap((hoisted) => this.#backbone.cut({ hoisted }).hoisted);
    await this.#backbone.sessions.engine.free(tables.map((table) => heldTable(this.#request, table)));
  }
}

const heldTable = (request: string, table: string): string => `${request}:${table}`;

const conditionFeed = ({ feeds }: Conditions, name: string): HostTensor => {
  const feed = feeds[name];
  if (!feed) throw new Error(`no condition gives the input "${name}"`);
  return feed;
};

const integers = (values: readonly number[]): HostTensor => ({
  dtype: "int64",
  dims: [values.length],
  data: BigInt64Array.from(values, BigInt),
});
