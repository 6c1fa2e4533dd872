import {
  type Bindings,
  type FlopsConvention,
  Graph,
  type Node,
  nodeFlops,
  type Shape,
  type Value,
} from "../../graph/index.js";
import { BATCH, type Input, type Model, type Site, type Streams, type Trace } from "../../tracing/index.js";

/** A part of a model that it names: a cacheable feature, or what is hoisted out of the step. */
export interface Part {
  /** "hoisted", or the level of the feature. */
  readonly kind: string;
  readonly name: string;
}

/** A node of a model's whole graph and where it stands. */
export interface PlacedNode {
  readonly node: Node;
  /** The parts it lies in, outermost first. */
  readonly parts: readonly Part[];
  /** Name of the weight that it multiplies with, if any. */
  readonly weight: string | undefined;
}

/** The whole graph of a model, each node with its place. */
export function placedNodes(model: Model): PlacedNode[] {
  const trace = new PlacingTrace(model);
  trace.graph.output("output", model.build(trace));
  return trace.graph.reachable().nodes.map((node) => {
    const origin = node.inputs[1]?.origin;
    return {
      node,
      parts: trace.graph.places.get(node) as readonly Part[],
      weight: origin?.kind === "weight" ? origin.tensor : undefined,
    };
  });
}

/** Operations of the nodes chosen, of one run. */
export type Count = (choose: (placed: PlacedNode) => boolean) => number;

export function counter(model: Model, bindings: Bindings, convention: FlopsConvention): Count {
  const counted = placedNodes(model).map((placed) => ({ placed, flops: nodeFlops(placed.node, bindings, convention) }));
  return (choose) => counted.reduce((sum, { placed, flops }) => sum + (choose(placed) ? flops : 0), 0);
}

/** True if the node lies in a part of that kind, and of that name or a name that begins so. */
export const within = ({ parts }: PlacedNode, kind: Part["kind"], prefix = ""): boolean =>
  parts.some((part) => part.kind === kind && part.name.startsWith(prefix));

/** Remembers the part in which each node was made. */
class PlacingGraph extends Graph {
  readonly places = new Map<Node, readonly Part[]>();
  #open: readonly Part[] = [];

  within(part: Part, compute: () => Value): Value {
    const outside = this.#open;
    this.#open = [...outside, part];
    try {
      return compute();
    } finally {
      this.#open = outside;
    }
  }

  override nodes(...args: Parameters<Graph["nodes"]>): Value[] {
    const values = super.nodes(...args);
    this.places.set(values[0]?.producer as Node, this.#open);
    return values;
  }
}

class PlacingTrace implements Trace {
  readonly graph = new PlacingGraph();
  readonly #inputs: ReadonlyMap<string, Input>;

  constructor(model: Model) {
    this.#inputs = new Map(model.inputs.map((input) => [input.name, input]));
  }

  input(name: string): Value {
    const { shape, dtype, varies } = this.#inputs.get(name) as Input;
    return this.graph.input(name, varies === "size" ? shape : [BATCH, ...shape], dtype);
  }
  weight(name: string, shape: readonly number[]): Value {
    return this.graph.weight(name, shape);
  }
  hoist(_varies: "pair" | "condition", name: string, _shape: Shape, compute: () => Value): Value {
    return this.graph.within({ kind: "hoisted", name }, compute);
  }
  feature({ level, name }: Site, x: Value, compute: (x: Value) => Value): Value {
    return this.graph.within({ kind: level, name }, () => compute(x));
  }
  chain<S extends Streams>(_name: string, streams: S, blocks: readonly ((streams: S) => S)[]): S {
    return blocks.reduce((state, block) => block(state), streams);
  }
  mark(_name: string, value: Value): Value {
    return value;
  }
}
