import { FemoError } from "../errors.js";
import { formatShape, type Shape, sizeOf } from "./shape.js";
import { type Builder, type DType, type Node, type NodeOptions, type Origin, type Part, Value } from "./value.js";

/**
 * A tensor computation without tensors: ONNX nodes, appended in the order in which the values are made. Only what the
 * outputs reach counts as part of the graph, so dead branches need no pruning pass.
 */
export class Graph implements Builder {
  readonly outputs: { name: string; value: Value }[] = [];
  readonly #inputs = new Map<string, Value>();
  readonly #weights = new Map<string, Value>();
  #count = 0;
  #parts: readonly Part[] = [];

  /** A graph input. Asking twice for a name gives the same value. */
  input(name: string, shape: Shape, dtype: DType = "float32"): Value {
    return this.#once(this.#inputs, name, shape, dtype, { kind: "input" });
  }

  /** A tensor of the checkpoint, by name; graphs compute in float32, so half-precision tensors are cast when loaded. */
  weight(name: string, shape: readonly number[]): Value {
    return this.#once(this.#weights, name, shape, "float32", { kind: "weight", tensor: name });
  }

  constant(data: Float32Array | BigInt64Array, shape: readonly number[]): Value {
    const size = sizeOf(shape);
    if (size !== data.length) {
      throw new FemoError(
        "E_GRAPH",
        `constant of shape ${formatShape(shape)} needs ${size} elements, got ${data.length}`,
      );
    }
    const dtype = data instanceof Float32Array ? "float32" : "int64";
    return new Value(this, `constant_${this.#count++}`, shape, dtype, { kind: "constant", data });
  }

  scalar(x: number): Value {
    return this.constant(Float32Array.of(x), []);
  }

  integers(values: readonly number[]): Value {
    return this.constant(BigInt64Array.from(values, BigInt), [values.length]);
  }

  output(name: string, value: Value): void {
    if (this.outputs.some((output) => output.name === name)) {
      throw new FemoError("E_GRAPH", `the graph has two outputs named "${name}"`);
    }
    this.outputs.push({ name, value });
  }

  node(op: string, inputs: readonly (Value | null)[], shape: Shape, options: NodeOptions = {}): Value {
    return this.nodes(op, inputs, [shape], options)[0] as Value;
  }

  /** A node with several outputs. */
  nodes(op: string, inputs: readonly (Value | null)[], shapes: readonly Shape[], options: NodeOptions = {}): Value[] {
    const stranger = inputs.find((value) => value && value.graph !== this);
    if (stranger) throw new FemoError("E_GRAPH", `${op}: input "${stranger.name}" belongs to another graph`);
    const dtype = options.dtype ?? inputs.find((value) => value !== null)?.dtype ?? "float32";
    const id = this.#count++;
    const outputs = shapes.map((shape, i) => new Value(this, `${op}_${id}${i ? `_${i}` : ""}`, shape, dtype, null));
    const depth = 1 + Math.max(0, ...inputs.map((input) => input?.depth ?? 0));
    const { domain = "", attributes = {} } = options;
    const node = { op, domain, inputs, outputs, attributes, depth, parts: this.#parts };
    for (const output of outputs) output.producer = node;
    return outputs;
  }

  /** Nodes made meanwhile lie in that part. */
  within<T>(part: Part, make: () => T): T {
    const outside = this.#parts;
    this.#parts = [...outside, part];
    const made = make();
    this.#parts = outside;
    return made;
  }

  /** What the outputs reach, each once, in an order in which it can be computed. */
  reachable(): { nodes: Node[]; inputs: Value[]; weights: Value[]; constants: Value[] } {
    const seen = new Set<Value | Node>();
    const found = { nodes: [] as Node[], inputs: [] as Value[], weights: [] as Value[], constants: [] as Value[] };
    const stack = this.outputs.map((output) => output.value).reverse();
    while (stack.length > 0) {
      const value = stack[stack.length - 1] as Value;
      const node = value.producer;
      if (node ? seen.has(node) : seen.has(value)) {
        stack.pop();
        continue;
      }
      if (!node) {
        seen.add(value);
        stack.pop();
        const list = { input: found.inputs, weight: found.weights, constant: found.constants };
        if (value.origin) list[value.origin.kind].push(value);
        continue;
      }
      const waiting = node.inputs.filter((input) => input && !seen.has(input.producer ?? input)) as Value[];
      if (waiting.length > 0) {
        stack.push(...waiting.reverse());
        continue;
      }
      seen.add(node);
      found.nodes.push(node);
      stack.pop();
    }
    return found;
  }

  #once(known: Map<string, Value>, name: string, shape: Shape, dtype: DType, origin: Origin): Value {
    const old = known.get(name);
    if (!old) {
      const value = new Value(this, name, shape, dtype, origin);
      known.set(name, value);
      return value;
    }
    if (formatShape(old.shape) !== formatShape(shape) || old.dtype !== dtype) {
      throw new FemoError(
        "E_GRAPH",
        `${origin.kind} "${name}" is used as ${old.dtype} ${formatShape(old.shape)} and as ${dtype} ${formatShape(shape)}`,
      );
    }
    return old;
  }
}
