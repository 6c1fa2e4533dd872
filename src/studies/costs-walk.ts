import {
  type Bindings,
  type FlopsConvention,
  type Granularity,
  Graph,
  type ModelDefinition,
  type Node,
  nodeFlops,
  type Shape,
  type Trace,
  type Value,
} from "../graph/index.js";

/** A part of a model that it names: a cacheable feature, or what is hoisted out of the step. */
export interface Part {
  readonly kind: Granularity | "hoisted";
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
export function placedNodes(model: ModelDefinition): PlacedNode[] {
  const trace = new PlacingTrace();
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

export function counter(model: ModelDefinition, bindings: Bindings, convention: FlopsConvention): Count {
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

  input(...args: Parameters<Graph["input"]>): Value {
    return this.graph.input(...args);
  }
  weight(name: string, shape: readonly number[]): Value {
    return this.graph.weight(name, shape);
  }
  hoist(name: string, _shape: Shape, compute: () => Value): Value {
    return this.graph.within({ kind: "hoisted", name }, compute);
  }
  feature(level: Granularity, name: string, _shape: Shape, compute: () => Value): Value {
    return this.graph.within({ kind: level, name }, compute);
  }
  residual(level: Granularity, name: string, _x: Value, compute: () => Value): Value {
    return this.graph.within({ kind: level, name }, compute);
  }
}
