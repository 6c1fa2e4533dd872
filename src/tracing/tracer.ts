import { FemoError } from "../errors.js";
import { type Dim, Graph, productDim, type Shape, type Value } from "../graph/index.js";
import { type Cut, type Place, type Region, type StateShape, spanName } from "./cut.js";
import type { Input, Model } from "./model.js";
import { BATCH, CONDITIONS, once, PAIRS, type Site, type Streams, type Trace } from "./trace.js";

/** A cacheable tensor of a traced model. */
export interface FeatureSite {
  readonly name: string;
  /** Its shape in the model, the batch in front. */
  readonly shape: Shape;
  /** Elements of one sample's feature. */
  readonly elements: Dim;
}

export interface TracedGraph {
  readonly graph: Graph;
  /** The features that the graph gives out. */
  readonly captured: readonly FeatureSite[];
  /** Those that it forecasts, in the order in which their coefficients are stacked. */
  readonly forecasts: readonly FeatureSite[];
  /** Names of the hoisted values: outputs of the graphs that compute them, inputs of the others. */
  readonly hoisted: readonly string[];
  /** Names of the streams with which the graph begins: inputs. */
  readonly begin: readonly string[];
  /** Names of the streams with which it ends: outputs. */
  readonly end: readonly string[];
}

/** Names of graph inputs and outputs beside the model's own. */
export const graphNames = {
  output: "output",
  /** int64 [batch]: which row of the tables of pairs, and of conditions, each sample uses. */
  pair: "pair",
  condition: "condition",
  /** [features, batch, 1, k]: c of "F^ = c S". */
  combine: "combine",
  /** The true feature in its own shape, given out by a full step. */
  feature: (feature: string) => `feature:${feature}`,
  /** [batch, 1, elements]: the i-th newest true feature. */
  history: (feature: string, i: number) => `history:${feature}:${i}`,
  /** [batch, averages, elements] */
  averages: (feature: string) => `averages:${feature}`,
  mark: (mark: string) => `mark:${mark}`,
  stream: ({ chain, block }: Place, stream: string) => `stream:${chain}.${block}:${stream}`,
} as const;

/**
 * Builds the graph that a cut describes.
 * @throws FemoError E_GRAPH if the model has no such level, site, chain, block or mark
 */
export function traceCut(model: Model, cut: Cut): TracedGraph {
  const tracer = new Tracer(model, cut);
  const output = model.build(tracer);
  if (cut.to === undefined && cut.hoisted !== "pair" && cut.hoisted !== "condition") {
    tracer.graph.output(graphNames.output, output);
  }
  tracer.checkUsed();
  const { graph, captured, forecasts, hoisted, begin, end } = tracer;
  return { graph, captured, forecasts, hoisted, begin, end };
}

class Tracer implements Trace {
  readonly graph = new Graph();
  readonly captured: FeatureSite[] = [];
  readonly forecasts: FeatureSite[] = [];
  readonly hoisted: string[] = [];
  readonly begin: string[] = [];
  readonly end: string[] = [];
  readonly #inputs: ReadonlyMap<string, Input>;
  readonly #cut: Cut;
  /** What the cut names and the model has not shown yet. */
  readonly #wanted: Set<string>;
  #hasBegun: boolean;
  #hasEnded = false;

  constructor(model: Model, cut: Cut) {
    this.#inputs = new Map(model.inputs.map((input) => [input.name, input]));
    this.#cut = cut;
    this.#hasBegun = cut.from === undefined;
    this.#wanted = new Set([
      ...[cut.capture, cut.forecast].flatMap((region) => (region ? namesOf(region) : [])),
      ...[cut.from, cut.to].flatMap((place) => (place ? [describePlace(place)] : [])),
      ...(cut.give ?? []).map((mark) => `mark "${mark}"`),
    ]);
    if (cut.forecast && !cut.state) throw new FemoError("E_GRAPH", "a cut that forecasts needs the shape of its state");
  }

  input(name: string): Value {
    const input = this.#inputs.get(name);
    if (!input) throw new FemoError("E_GRAPH", `the model does not declare the input "${name}"`);
    const { shape, dtype, varies } = input;
    if (varies === "size") return this.graph.input(name, shape, dtype);
    const tabled = varies !== "step" && this.#cut.hoisted === undefined;
    if (!tabled) return this.graph.input(name, [BATCH, ...shape], dtype);
    return varies === "timestep" ? this.#row("pair", name, shape, dtype) : this.#row("condition", name, shape, dtype);
  }

  weight(name: string, shape: readonly number[]): Value {
    return this.graph.weight(name, shape);
  }

  hoist(varies: "pair" | "condition", name: string, shape: Shape, compute: () => Value): Value {
    const { hoisted } = this.#cut;
    if (hoisted === undefined) {
      this.hoisted.push(name);
      return this.#row(varies, name, shape.slice(1));
    }
    const value = compute();
    if (hoisted === varies) {
      this.hoisted.push(name);
      this.graph.output(name, value);
    }
    return value;
  }

  feature(site: Site, x: Value, compute: (x: Value) => Value): Value {
    const { forecast, capture } = this.#cut;
    const hasBegun = this.#hasBegun;
    if (hasBegun && !this.#hasEnded && this.#isIn(forecast, site)) {
      const f = this.#forecast(site.name, site.shape ?? x.shape, x);
      return site.residual ? x.add(f) : f;
    }
    const y = compute(x);
    // A change is known if both its ends are between the cut's places, any other tensor if it is.
    const isKnown = (site.residual ? hasBegun : this.#hasBegun) && !this.#hasEnded;
    if (isKnown && this.#isIn(capture, site)) {
      this.captured.push(featureSite(site.name, y.shape));
      this.graph.output(graphNames.feature(site.name), site.residual ? y.sub(x) : y);
    }
    return y;
  }

  chain<S extends Streams>(name: string, streams: S, blocks: readonly ((streams: S) => S)[]): S {
    const { from, to } = this.#cut;
    let [now, block] = [streams, 0];
    if (from?.chain === name) {
      [now, block] = [this.#begin(streams, from), from.block];
      this.#checkPlace(from, blocks.length);
    }
    while (block < blocks.length) {
      this.#end(name, block, now);
      const end = this.#spanAt(name, block, blocks.length);
      const run = blocks.slice(block, end);
      now = this.#change(name, block, end, now, (s) => run.reduce((state, next) => next(state), s));
      block = end;
    }
    this.#end(name, block, now);
    if (to?.chain === name) this.#checkPlace(to, blocks.length);
    return now;
  }

  mark(name: string, value: Value): Value {
    if (this.#cut.give?.includes(name)) {
      this.#wanted.delete(`mark "${name}"`);
      this.graph.output(graphNames.mark(name), value);
    }
    return value;
  }

  /** @throws FemoError E_GRAPH if the cut names what the model does not have */
  checkUsed(): void {
    const [missing] = this.#wanted;
    if (missing === undefined) return;
    const { from, to } = this.#cut;
    const where = from || to ? " between the places at which the graph begins and ends" : "";
    throw new FemoError("E_GRAPH", `the model has no ${missing}${where}`);
  }

  /** The row of a table that each sample uses. */
  #row(varies: "pair" | "condition", name: string, shape: Shape, dtype?: Input["dtype"]): Value {
    const table = this.graph.input(name, [varies === "pair" ? PAIRS : CONDITIONS, ...shape], dtype);
    return table.gather(this.graph.input(graphNames[varies], [BATCH], "int64"));
  }

  /** One or several blocks as sites: what is kept is the change of each stream. */
  #change<S extends Streams>(chain: string, first: number, end: number, streams: S, run: (streams: S) => S): S {
    const made = once(() => run(streams));
    const span = spanName({ chain, blocks: [first, end] });
    const level = end === first + 1 ? "block" : SPAN;
    const alone = Object.keys(streams).length === 1;
    const changed = Object.entries(streams).map(([stream, x]) => {
      const site = { level, name: alone ? span : `${span}.${stream}`, residual: true };
      return [stream, this.feature(site, x, () => made()[stream] as Value)];
    });
    return Object.fromEntries(changed);
  }

  /** Behind the last of the blocks that go together from here on: one, or those that the cut's region spans. */
  #spanAt(chain: string, block: number, length: number): number {
    for (const region of [this.#cut.capture, this.#cut.forecast]) {
      if (!region || !("chain" in region) || region.chain !== chain) continue;
      const [first, end] = region.blocks;
      this.#checkPlace({ chain, block: end }, length);
      if (first === block && end > first) return end;
    }
    return block + 1;
  }

  #begin<S extends Streams>(streams: S, place: Place): S {
    this.#wanted.delete(describePlace(place));
    this.#hasBegun = true;
    const inputs = Object.entries(streams).map(([stream, { shape }]) => {
      const name = graphNames.stream(place, stream);
      this.begin.push(name);
      return [stream, this.graph.input(name, shape)];
    });
    return Object.fromEntries(inputs);
  }

  #end(chain: string, block: number, streams: Streams): void {
    const { to } = this.#cut;
    if (to?.chain !== chain || to.block !== block) return;
    this.#wanted.delete(describePlace(to));
    this.#hasEnded = true;
    for (const [stream, value] of Object.entries(streams)) {
      const name = graphNames.stream(to, stream);
      this.end.push(name);
      this.graph.output(name, value);
    }
  }

  #checkPlace({ chain, block }: Place, length: number): void {
    if (Number.isInteger(block) && block >= 0 && block <= length) return;
    throw new FemoError("E_GRAPH", `${chain}: expected a place from 0 to ${length}, found ${block}`);
  }

  #isIn(region: Region | undefined, { level, name }: Site): boolean {
    if (!region) return false;
    if ("sites" in region) return region.sites.includes(name) && this.#found(`site "${name}"`);
    if ("level" in region) return region.level === level && this.#found(`level "${level}"`);
    const span = spanName(region);
    const isSpan = level === "block" || level === SPAN;
    return isSpan && (name === span || name.startsWith(`${span}.`)) && this.#found(span);
  }

  #found(what: string): true {
    this.#wanted.delete(what);
    return true;
  }

  /** @param x from which a true feature would be computed: its sizes are the feature's */
  #forecast(name: string, shape: Shape, x: Value): Value {
    const index = BigInt64Array.of(BigInt(this.forecasts.length));
    const feature = featureSite(name, shape);
    this.forecasts.push(feature);
    const { elements } = feature;
    const { history, averages } = this.#cut.state as StateShape;
    const state = { history, averages };
    const rows = stateRows(this.graph, state, elements, (i) => graphNames.history(name, i), graphNames.averages(name));
    const all = this.graph.input(graphNames.combine, ["features", BATCH, 1, history + averages]);
    return all.gather(this.graph.constant(index, [])).matMul(rows).reshape(shape, x);
  }
}

function featureSite(name: string, shape: Shape): FeatureSite {
  return { name, shape, elements: productDim(shape.slice(1)) };
}

function namesOf(region: Region): string[] {
  if ("level" in region) return [`level "${region.level}"`];
  if ("sites" in region) return region.sites.map((name) => `site "${name}"`);
  return [spanName(region)];
}

/** The level of several blocks in a row, which only a cut names. */
const SPAN = "span";

const describePlace = ({ chain, block }: Place): string => `chain "${chain}" with a place before block ${block}`;

/** S of a feature, [batch, k, elements], stacked from the tensors that it is kept in. */
export function stateRows(
  graph: Graph,
  { history, averages }: StateShape,
  elements: Dim,
  historyName: (i: number) => string,
  averagesName: string,
): Value {
  const rows = Array.from({ length: history }, (_, i) => graph.input(historyName(i), [BATCH, 1, elements]));
  if (averages > 0) rows.push(graph.input(averagesName, [BATCH, averages, elements]));
  const [first, ...others] = rows as [Value, ...Value[]];
  return others.length > 0 ? first.concat(others, 1) : first;
}
