import { FemoError } from "../errors.js";
import { type DType, Graph, type Value } from "./graph.js";
import { bindDim, type Dim, type Shape } from "./shape.js";

/** The level at which features are forecast, from the finest to the coarsest. */
export const granularities = ["module", "block", "stack", "output"] as const;
export type Granularity = (typeof granularities)[number];

/** Leading axis of every activation: the samples of a batch, guidance rows included. */
export const BATCH = "batch";
/** Rows of the conditioning table: distinct (timestep, condition) pairs. */
const PAIRS = "pairs";

/**
 * What a model is written against. It names its parts; the tracer decides what a name means, so one model function
 * gives the conditioning graph, the full graph and the forecast graph.
 */
export interface Trace {
  readonly graph: Graph;
  /** A model input that changes every step, e.g. the noisy sample. */
  input(name: string, shape: Shape, dtype?: DType): Value;
  /** A tensor of the checkpoint. */
  weight(name: string, shape: readonly number[]): Value;
  /** A part that depends on timestep and condition alone: computed once for all steps, before the first. */
  hoist(name: string, shape: Shape, compute: () => Value): Value;
  /** A cacheable tensor of the given shape, with the batch in front. */
  feature(level: Granularity, name: string, shape: Shape, compute: () => Value): Value;
  /** A cacheable change of x: what is forecast is compute() - x. */
  residual(level: Granularity, name: string, x: Value, compute: () => Value): Value;
}

/** A model, written once, traced several ways. */
export interface ModelDefinition {
  /** Shape of one sample, without the batch axis. */
  readonly sampleShape: readonly number[];
  /** Shape of one output, without the batch axis. */
  readonly outputShape: readonly number[];
  /** Inputs of the conditioning, one value per row each: a scalar, or a tensor of the given shape. */
  readonly conditions: readonly {
    readonly name: string;
    readonly dtype: "float32" | "int64";
    readonly shape?: readonly number[];
  }[];
  build(trace: Trace): Value;
}

/** How many tensors a forecaster keeps of each feature: its last ones, and running averages (`Forecaster`). */
export interface StateShape {
  readonly history: number;
  readonly averages: number;
}

/** A cacheable tensor of a traced model. */
export interface FeatureSite {
  readonly name: string;
  /** Its shape in the model, the batch in front. */
  readonly shape: Shape;
  /** Elements of one sample's feature. */
  readonly elements: number;
}

export interface TracedGraph {
  readonly graph: Graph;
  /** The features the graph reads and writes, in the order in which coefficients are stacked. */
  readonly features: readonly FeatureSite[];
  /** Names of the hoisted values: outputs of the conditioning graph, inputs of the others. */
  readonly hoisted: readonly string[];
}

/** Names of graph inputs and outputs beside the model's own. */
export const names = {
  output: "output",
  /** int64 [batch]: which row of the conditioning tables each sample uses. */
  pair: "pair",
  /** [features, batch, 1, k]: c of "F^ = c S". */
  combine: "combine",
  /** The true feature in its own shape, given out by a full step. */
  feature: (feature: string) => `feature:${feature}`,
  /** [batch, 1, elements]: the i-th newest true feature. */
  history: (feature: string, i: number) => `history:${feature}:${i}`,
  /** [batch, averages, elements] */
  averages: (feature: string) => `averages:${feature}`,
} as const;

/** The parts a tracer can replace; everything else is the model's. */
class PlainTrace implements Trace {
  readonly graph = new Graph();
  readonly hoisted: string[] = [];
  readonly features: FeatureSite[] = [];

  input(name: string, shape: Shape, dtype: DType = "float32"): Value {
    return this.graph.input(name, shape, dtype);
  }

  weight(name: string, shape: readonly number[]): Value {
    return this.graph.weight(name, shape);
  }

  hoist(_name: string, _shape: Shape, compute: () => Value): Value {
    return compute();
  }

  feature(level: Granularity, name: string, _shape: Shape, compute: () => Value): Value {
    return this.intercept(level, name, compute());
  }

  residual(level: Granularity, name: string, x: Value, compute: () => Value): Value {
    const y = compute();
    this.intercept(level, name, y, x);
    return y;
  }

  /** Called with every computed feature; `base` is what the feature is a change of. */
  protected intercept(_level: Granularity, _name: string, value: Value, _base?: Value): Value {
    return value;
  }

  protected register(name: string, shape: Shape): number {
    const elements = bindDim(
      shape.slice(1).reduce((a, b) => Number(a) * Number(b), 1),
      {},
    );
    if (this.features.some((feature) => feature.name === name)) {
      throw new FemoError("E_GRAPH", `two features are named "${name}"`);
    }
    this.features.push({ name, shape, elements });
    return elements;
  }
}

/** Hoisted parts are rows of tables computed beforehand. */
class StepTrace extends PlainTrace {
  override hoist(name: string, shape: Shape, _compute: () => Value): Value {
    this.hoisted.push(name);
    const table = this.graph.input(name, [PAIRS, ...shape.slice(1)]);
    return table.gather(this.graph.input(names.pair, [BATCH], "int64"));
  }
}

class ConditioningTrace extends PlainTrace {
  override hoist(name: string, _shape: Shape, compute: () => Value): Value {
    const value = compute();
    this.hoisted.push(name);
    this.graph.output(name, value);
    return value;
  }
}

class FullTrace extends StepTrace {
  constructor(readonly granularity: Granularity) {
    super();
  }

  protected override intercept(level: Granularity, name: string, value: Value, base?: Value): Value {
    if (level !== this.granularity) return value;
    this.register(name, value.shape);
    this.graph.output(names.feature(name), base ? value.sub(base) : value);
    return value;
  }
}

class ForecastTrace extends StepTrace {
  constructor(
    readonly granularity: Granularity,
    readonly state: StateShape,
  ) {
    super();
  }

  override feature(level: Granularity, name: string, shape: Shape, compute: () => Value): Value {
    return level === this.granularity ? this.#forecast(name, shape) : super.feature(level, name, shape, compute);
  }

  override residual(level: Granularity, name: string, x: Value, compute: () => Value): Value {
    return level === this.granularity ? x.add(this.#forecast(name, x.shape)) : super.residual(level, name, x, compute);
  }

  #forecast(name: string, shape: Shape): Value {
    const index = BigInt64Array.of(BigInt(this.features.length));
    const elements = this.register(name, shape);
    const { history, averages } = this.state;
    const rows = stateRows(this.graph, this.state, elements, (i) => names.history(name, i), names.averages(name));
    const all = this.graph.input(names.combine, ["features", BATCH, 1, history + averages]);
    return all.gather(this.graph.constant(index, [])).matMul(rows).reshape(shape);
  }
}

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

/** Everything in one graph, with its conditioning: for counting, for checking a checkpoint, for running uncached. */
export function traceWhole(model: ModelDefinition): TracedGraph {
  const trace = new PlainTrace();
  trace.graph.output(names.output, model.build(trace));
  return trace;
}

/** Timesteps and conditions, a row each, to the tables of all hoisted parts. */
export function traceConditioning(model: ModelDefinition): TracedGraph {
  const trace = new ConditioningTrace();
  model.build(trace);
  return trace;
}

/** One uncached step, given the conditioning tables. */
export function traceStep(model: ModelDefinition): TracedGraph {
  const trace = new StepTrace();
  trace.graph.output(names.output, model.build(trace));
  return trace;
}

/** One full step that also gives out every feature of a level. */
export function traceFull(model: ModelDefinition, granularity: Granularity): TracedGraph {
  const trace = new FullTrace(granularity);
  trace.graph.output(names.output, model.build(trace));
  return trace;
}

/** One step that forecasts every feature of a level, F^ = c S, and computes what is left. */
export function traceForecast(model: ModelDefinition, granularity: Granularity, state: StateShape): TracedGraph {
  const trace = new ForecastTrace(granularity, state);
  trace.graph.output(names.output, model.build(trace));
  return trace;
}
