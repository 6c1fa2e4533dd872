import { FemoError } from "../errors.js";
import { type Dim, type DType, Graph, productDim, type Shape, type Value } from "../graph/index.js";
import {
  type Cut,
  type Place,
  partsOf,
  type Region,
  type Span,
  type StateDtype,
  type StateShape,
  spanName,
} from "./cut.js";
import type { Input, Model } from "./model.js";
import { type Kept, type Sparse, sparseAttention, sparseMlp } from "./sparse.js";
import { columnMass, nextAge, tokenScores } from "./token-choice.js";
import {
  BATCH,
  CONDITIONS,
  computeMlp,
  type MlpLayers,
  once,
  PAIRS,
  type Site,
  type Streams,
  type Tokenwise,
  type Trace,
} from "./trace.js";

/** A cacheable tensor of a traced model. */
export interface FeatureSite {
  readonly name: string;
  /** Its shape in the model, the batch in front. */
  readonly shape: Shape;
  /** Elements of one sample's feature. */
  readonly elements: Dim;
}

/** A feature of which a graph computes chosen tokens. */
export interface ChosenSite extends FeatureSite {
  /** The block in which it lies. */
  readonly place: Place;
  /** The symbol that stands for how many are chosen. */
  readonly tokens: string;
}

/** Kinds of the parts of a traced graph; of a feature that is computed it is its level. */
export const partKinds = { hoisted: "hoisted", forecast: "forecast" } as const;

export interface TracedGraph {
  /** Its nodes know in which features, forecasts and hoisted parts they were made. */
  readonly graph: Graph;
  /** The features that the graph gives out. */
  readonly captured: readonly FeatureSite[];
  /** Those that it forecasts, in the order in which their coefficients are stacked. */
  readonly forecasts: readonly FeatureSite[];
  /** Those of which it computes chosen tokens, in the order in which their numbers are stacked. */
  readonly chosen: readonly ChosenSite[];
  /** Those that it gives out to replace the newest of what is kept: the chosen ones, and others that it computes whole. */
  readonly renewed: readonly FeatureSite[];
  /** Names of the hoisted values: outputs of the graphs that compute them, inputs of the others. */
  readonly hoisted: readonly string[];
  /** Names of the streams with which the graph begins: inputs. */
  readonly begin: readonly string[];
  /** Names of the streams with which it ends, or which it gives out on the way: outputs. */
  readonly end: readonly string[];
  /** Names of what it takes of earlier steps beside features and streams: inputs. */
  readonly takes: readonly string[];
  /** Names of what it leaves for later steps beside them: outputs (`graphNames.next` if it takes the same). */
  readonly leaves: readonly string[];
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
  /** int64 [sites]: how many tokens are computed of each feature that has chosen ones. */
  tokens: "tokens",
  /** [2]: what each step without it adds to a token's score, and the bonus of the best of each cell. */
  scoring: "scoring",
  /** [batch, tokens]: how much attention each token got at the last step that computed it, 1 over all tokens. */
  mass: (attention: string) => `mass:${attention}`,
  /** [batch, tokens, 1]: the steps since each token was computed. */
  age: (feature: string) => `age:${feature}`,
  /** What a graph leaves under a name under which it takes it too. */
  next: (name: string) => `next:${name}`,
  /** What a layer that is corrected later leaves, or takes. */
  kept: (layer: string, part: string) => `kept:${layer}:${part}`,
  stream: ({ chain, block }: Place, stream: string) => `stream:${chain}.${block}:${stream}`,
} as const;

/**
 * Builds the graph that a cut describes.
 * @throws FemoError E_GRAPH if the model has no such level, site, chain, block or mark
 */
export function traceCut(model: Model, cut: Cut): TracedGraph {
  const tracer = new Tracer(model, cut);
  const output = model.build(tracer);
  if (cut.to === undefined && !cut.aside && cut.hoisted !== "pair" && cut.hoisted !== "condition") {
    tracer.graph.output(graphNames.output, output);
  }
  tracer.checkUsed();
  const { graph, captured, forecasts, chosen, renewed, hoisted, begin, end, takes, leaves } = tracer;
  return { graph, captured, forecasts, chosen, renewed, hoisted, begin, end, takes, leaves };
}

class Tracer implements Trace {
  readonly graph = new Graph();
  readonly captured: FeatureSite[] = [];
  readonly forecasts: FeatureSite[] = [];
  readonly chosen: ChosenSite[] = [];
  readonly renewed: FeatureSite[] = [];
  readonly hoisted: string[] = [];
  readonly begin: string[] = [];
  readonly end: string[] = [];
  readonly takes: string[] = [];
  readonly leaves: string[] = [];
  readonly #inputs: ReadonlyMap<string, Input>;
  readonly #cut: Cut;
  /** What the cut names and the model has not shown yet. */
  readonly #wanted: Set<string>;
  #hasBegun: boolean;
  #hasEnded = false;
  /** The block that is traced. */
  #place: Place | undefined;
  /** While a feature is traced of which some tokens are computed: which ones, int64 [batch, k], of which x. */
  #among: { readonly indices: Value; readonly all: Value } | undefined;
  /** Blocks before the chain under way. */
  #blocks = 0;

  constructor(model: Model, cut: Cut) {
    this.#inputs = new Map(model.inputs.map((input) => [input.name, input]));
    this.#cut = cut;
    this.#hasBegun = cut.from === undefined;
    this.#wanted = new Set([
      ...[cut.capture, cut.forecast, cut.tokens, cut.renew].flatMap((region) => (region ? namesOf(region) : [])),
      ...[cut.from, cut.to, cut.pass].flatMap((place) => (place ? [describePlace(place)] : [])),
      ...(cut.give ?? []).map((mark) => `mark "${mark}"`),
    ]);
    if (cut.forecast && !cut.state) throw new FemoError("E_GRAPH", "a cut that forecasts needs the shape of its state");
  }

  input(name: string): Value {
    const input = this.#inputs.get(name);
    if (!input) throw new FemoError("E_GRAPH", `the model does not declare the input "${name}"`);
    const { shape, dtype, varies } = input;
    if (varies === "size") return this.graph.input(name, shape, dtype);
    const tabled = varies !== "step" && varies !== "image" && this.#cut.hoisted === undefined;
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
    const value = this.graph.within({ kind: partKinds.hoisted, name }, compute);
    if (hoisted === varies) {
      this.hoisted.push(name);
      this.graph.output(name, value);
    }
    return value;
  }

  feature(site: Site, x: Value, run: (x: Value) => Value): Value {
    const compute = (of: Value): Value => this.graph.within({ kind: site.level, name: site.name }, () => run(of));
    const { forecast, capture, tokens, renew } = this.#cut;
    const hasBegun = this.#hasBegun;
    const isInside = hasBegun && !this.#hasEnded;
    const isRenewed = isInside && this.#isIn(renew, site);
    if (isInside && !isRenewed) {
      if (site.tokenwise && this.#isIn(tokens, site)) return this.#someTokens(site, site.tokenwise, x, compute);
      if (this.#isIn(forecast, site)) return this.#reused(site, x);
    }
    if (this.#among)
      throw new FemoError("E_GRAPH", `${site.name}: inside what chosen tokens go through, it has to be forecast`);
    const y = compute(x);
    // A change is known if both its ends are between the cut's places, any other tensor if it is.
    const isKnown = (site.residual ? hasBegun : this.#hasBegun) && !this.#hasEnded;
    if (isKnown && (isRenewed || this.#isIn(capture, site))) {
      (isRenewed ? this.renewed : this.captured).push(featureSite(site.name, y.shape));
      this.#give(site.name, site.residual ? y.sub(x) : y);
      if (this.#cut.scores && site.tokenwise) this.#leave(graphNames.age(site.name), y.zeros(2).unsqueeze(2));
    }
    return y;
  }

  chain<S extends Streams>(name: string, streams: S, blocks: readonly ((streams: S) => S)[]): S {
    const { from } = this.#cut;
    this.#renewAside(name, streams, blocks);
    let [now, block] = [streams, 0];
    if (from?.chain === name) {
      [now, block] = [this.#begin(streams, from), from.block];
      this.#checkPlace(from, blocks.length);
    }
    while (block < blocks.length) {
      this.#end(name, block, now);
      const end = this.#spanAt(name, block, blocks.length);
      const [first, run] = [block, blocks.slice(block, end)];
      now = this.#change(name, block, end, now, (s) =>
        run.reduce((state, next, i) => {
          this.#place = { chain: name, block: first + i };
          return next(state);
        }, s),
      );
      block = end;
    }
    this.#place = undefined;
    this.#end(name, block, now);
    this.#blocks += blocks.length;
    for (const place of [this.#cut.to, this.#cut.pass]) {
      if (place?.chain === name) this.#checkPlace(place, blocks.length);
    }
    return now;
  }

  mark(name: string, value: Value): Value {
    if (this.#cut.give?.includes(name)) {
      this.#wanted.delete(`mark "${name}"`);
      this.graph.output(graphNames.mark(name), value);
    }
    return value;
  }

  attention(name: string, queries: Value, keys: Value, values: Value, heads: number): Value {
    const isInside = this.#hasBegun && !this.#hasEnded;
    if (this.#cut.scores && isInside) this.#leave(graphNames.mass(name), columnMass(queries, keys, heads));
    const sparse = this.#sparse();
    return sparse
      ? sparseAttention([queries, keys, values], heads, sparse, this.#kept(name))
      : queries.attention(keys, values, heads);
  }

  mlp(name: string, x: Value, layers: MlpLayers): Value {
    const sparse = this.#sparse();
    return sparse ? sparseMlp(x, layers, sparse, this.#kept(name)) : computeMlp(x, layers);
  }

  /** @throws FemoError E_GRAPH if the cut names what the model does not have */
  checkUsed(): void {
    const [missing] = this.#wanted;
    if (missing === undefined) return;
    const { from, to } = this.#cut;
    const where = from || to ? " between the places at which the graph begins and ends" : "";
    throw new FemoError("E_GRAPH", `the model has no ${missing}${where}`);
  }

  /** How the layer under way is computed, unless it is whole. */
  #sparse(): Sparse | undefined {
    const { sparse } = this.#cut;
    const layer = this.#blocks + (this.#place?.block ?? 0);
    return sparse && layer >= sparse.denseLayers ? sparse : undefined;
  }

  #kept(layer: string): Kept {
    return {
      take: (part, shape, dtype) => this.#take(graphNames.kept(layer, part), shape, dtype),
      leave: (part, value) => this.#leave(graphNames.kept(layer, part), value),
    };
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

  /** Before the place at which the graph begins: blocks that are run for what they renew alone. */
  #renewAside<S extends Streams>(chain: string, streams: S, blocks: readonly ((streams: S) => S)[]): void {
    const parts = this.#cut.renew ? partsOf(this.#cut.renew) : [];
    const ends = parts.flatMap((part) =>
      "level" in part && part.within?.chain === chain ? [part.within.blocks[1]] : [],
    );
    if (this.#hasBegun || ends.length === 0) return;
    this.#hasBegun = true;
    blocks.slice(0, Math.max(...ends)).reduce((state, next, block) => {
      this.#place = { chain, block };
      return next(state);
    }, streams);
    this.#hasBegun = false;
  }

  /** Behind the last of the blocks that go together from here on: one, or those that the cut's region spans. */
  #spanAt(chain: string, block: number, length: number): number {
    for (const region of [this.#cut.capture, this.#cut.forecast].flatMap((region) => (region ? partsOf(region) : []))) {
      if (!("chain" in region) || region.chain !== chain) continue;
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
    for (const place of [this.#cut.pass, this.#cut.to]) {
      if (place?.chain !== chain || place.block !== block) continue;
      this.#wanted.delete(describePlace(place));
      this.#hasEnded ||= place === this.#cut.to;
      for (const [stream, value] of Object.entries(streams)) {
        const name = graphNames.stream(place, stream);
        this.end.push(name);
        this.graph.output(name, value);
      }
    }
  }

  #checkPlace({ chain, block }: Place, length: number): void {
    if (Number.isInteger(block) && block >= 0 && block <= length) return;
    throw new FemoError("E_GRAPH", `${chain}: expected a place from 0 to ${length}, found ${block}`);
  }

  /** A feature with the chosen tokens computed and the others as they were kept, which becomes what is kept. */
  #someTokens(site: Site, tokenwise: Tokenwise, x: Value, compute: (x: Value) => Value): Value {
    const place = this.#place;
    if (!place) throw new FemoError("E_GRAPH", `${site.name}: tokens are chosen of features within blocks alone`);
    const [shape, names] = [site.shape ?? x.shape, graphNames];
    const { name, elements } = featureSite(site.name, shape);
    const [batch, tokens] = x.shape as [Dim, Dim];
    const symbol = `tokens:${name}?`;
    const age = this.#take(names.age(name), [batch, tokens, 1]);
    const mass = this.#take(names.mass(tokenwise.attention), [batch, tokenwise.attended]);
    const scoring = this.graph.input(names.scoring, [2]);
    const score = tokenScores(tokenwise.part?.(mass) ?? mass, {
      age,
      scoring,
      grid: tokenwise.grid,
      cell: this.#cut.cell,
    });
    const count = this.graph.input(names.tokens, ["sites"], "int64").gather(this.graph.integers([this.chosen.length]));
    const indices = score.topK(count, symbol);
    this.#leave(names.age(name), nextAge(age, indices));
    this.chosen.push({ name, shape, elements, place, tokens: symbol });
    this.renewed.push({ name, shape, elements });

    const outside = this.#among;
    this.#among = { indices, all: x };
    const computed = compute(x.gatherRows(indices)); // [B, k, D']
    this.#among = outside;
    const newest = this.graph.input(names.history(name, 0), [batch, 1, elements], this.#cut.stateDtype);
    const kept = newest.cast("float32").reshape(shape, x);
    const mixed = kept.scatterRows(indices, computed);
    this.#give(name, mixed);
    return mixed;
  }

  /** A feature that is forecast; inside one of which some tokens are computed, of these tokens. */
  #reused(site: Site, x: Value): Value {
    const among = this.#among;
    const f = this.graph.within({ kind: partKinds.forecast, name: site.name }, () =>
      this.#forecast(site.name, site.shape ?? x.shape, among?.all ?? x),
    );
    const own = among ? f.gatherRows(among.indices) : f;
    return site.residual ? x.add(own) : own;
  }

  /** What an earlier step has left, an input; asking twice gives the same. */
  #take(name: string, shape: Shape, dtype?: DType): Value {
    if (!this.takes.includes(name)) this.takes.push(name);
    return this.graph.input(name, shape, dtype);
  }

  /** Gives a feature out, as it is kept. */
  #give(name: string, value: Value): void {
    this.graph.output(graphNames.feature(name), value.cast(this.#cut.stateDtype ?? "float32"));
  }

  /** Leaves a value for later steps. */
  #leave(name: string, value: Value): void {
    this.leaves.push(name);
    this.graph.output(this.takes.includes(name) ? graphNames.next(name) : name, value);
  }

  #isIn(region: Region | undefined, { level, name }: Site): boolean {
    if (!region) return false;
    // Each part that has the feature is found, not the first alone.
    if ("any" in region) return region.any.filter((part) => this.#isIn(part, { level, name })).length > 0;
    if ("sites" in region) return region.sites.includes(name) && this.#found(`site "${name}"`);
    if ("level" in region) {
      return region.level === level && this.#isWithin(region.within) && this.#found(`level "${level}"`);
    }
    const span = spanName(region);
    const isSpan = level === "block" || level === SPAN;
    return isSpan && (name === span || name.startsWith(`${span}.`)) && this.#found(span);
  }

  #isWithin(span: Span | undefined): boolean {
    if (!span) return true;
    const { chain, blocks } = span;
    const [first, end] = blocks;
    return this.#place?.chain === chain && this.#place.block >= first && this.#place.block < end;
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
    const state = { history, averages, stateDtype: this.#cut.stateDtype };
    const rows = stateRows(this.graph, state, elements, (i) => graphNames.history(name, i), graphNames.averages(name));
    const all = this.graph.input(graphNames.combine, ["features", BATCH, 1, history + averages]);
    return all.gather(this.graph.constant(index, [])).matMul(rows).reshape(shape, x);
  }
}

function featureSite(name: string, shape: Shape): FeatureSite {
  return { name, shape, elements: productDim(shape.slice(1)) };
}

const namesOf = (region: Region): string[] =>
  partsOf(region).flatMap((part) => {
    if ("level" in part) return [`level "${part.level}"`];
    return "sites" in part ? part.sites.map((name) => `site "${name}"`) : [spanName(part)];
  });

/** The level of several blocks in a row, which only a cut names. */
const SPAN = "span";

const describePlace = ({ chain, block }: Place): string => `chain "${chain}" with a place before block ${block}`;

/** S of a feature, float32 [batch, k, elements], stacked from the tensors that it is kept in. */
export function stateRows(
  graph: Graph,
  { history, averages, stateDtype }: StateShape & { readonly stateDtype?: StateDtype | undefined },
  elements: Dim,
  historyName: (i: number) => string,
  averagesName: string,
): Value {
  const rows = Array.from({ length: history }, (_, i) => graph.input(historyName(i), [BATCH, 1, elements], stateDtype));
  if (averages > 0) rows.push(graph.input(averagesName, [BATCH, averages, elements], stateDtype));
  const [first, ...others] = rows as [Value, ...Value[]];
  return (others.length > 0 ? first.concat(others, 1) : first).cast("float32");
}
