import { FemoError } from "../errors.js";
import { addDims, broadcast, type Dim, formatShape, productDim, type Shape, sameSize } from "./shape.js";

export type DType = "float32" | "float16" | "bfloat16" | "float64" | "int64" | "int32" | "bool";
export type Attribute = number | string | readonly number[] | { readonly float: number };

/** One ONNX operator call. */
export interface Node {
  readonly op: string;
  /** `""` is ONNX itself, `"com.microsoft"` ONNX Runtime's contributed operators. */
  readonly domain: string;
  readonly inputs: readonly (Value | null)[];
  readonly outputs: readonly Value[];
  readonly attributes: Readonly<Record<string, Attribute>>;
  /** Nodes on the longest way from the inputs to here, this one included. */
  readonly depth: number;
}

/** Where a value comes from; a node's outputs have none of these. */
export type Origin =
  | { kind: "input" }
  | { kind: "weight"; tensor: string }
  | { kind: "constant"; data: Float32Array | BigInt64Array };

interface NodeOptions {
  domain?: string;
  /** Of the outputs; default: that of the first input. */
  dtype?: DType;
  attributes?: Record<string, Attribute>;
}

/**
 * A tensor computation without tensors: ONNX nodes, appended in the order in which the values are made. Only what the
 * outputs reach counts as part of the graph, so dead branches need no pruning pass.
 */
export class Graph {
  readonly outputs: { name: string; value: Value }[] = [];
  readonly #inputs = new Map<string, Value>();
  readonly #weights = new Map<string, Value>();
  #count = 0;

  /** A graph input. Asking twice for a name gives the same value. */
  input(name: string, shape: Shape, dtype: DType = "float32"): Value {
    return this.#once(this.#inputs, name, shape, dtype, { kind: "input" });
  }

  /** A tensor of the checkpoint, by name; graphs compute in float32, so half-precision tensors are cast when loaded. */
  weight(name: string, shape: readonly number[]): Value {
    return this.#once(this.#weights, name, shape, "float32", { kind: "weight", tensor: name });
  }

  constant(data: Float32Array | BigInt64Array, shape: readonly number[]): Value {
    const size = shape.reduce((a, b) => a * b, 1);
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
    const node = { op, domain: options.domain ?? "", inputs, outputs, attributes: options.attributes ?? {}, depth };
    for (const output of outputs) output.producer = node;
    return outputs;
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

/** A symbolic tensor: a name, a shape and the node that makes it. Methods append nodes and infer shapes. */
export class Value {
  producer: Node | null = null;

  constructor(
    readonly graph: Graph,
    readonly name: string,
    readonly shape: Shape,
    readonly dtype: DType,
    readonly origin: Origin | null,
  ) {}

  get rank(): number {
    return this.shape.length;
  }

  /** Nodes on the longest way here. */
  get depth(): number {
    return this.producer?.depth ?? 0;
  }

  /**
   * ONNX Runtime computes what an operand needs from the last operand to the first. The one that needs more goes last,
   * so that a sum of many parts takes in each part as it is computed instead of waiting for all of them.
   */
  add(other: Value): Value {
    return this.depth > other.depth ? other.#binary("Add", this) : this.#binary("Add", other);
  }
  sub(other: Value): Value {
    return this.#binary("Sub", other);
  }
  mul(other: Value): Value {
    return this.#binary("Mul", other);
  }

  sin(): Value {
    return this.graph.node("Sin", [this], this.shape);
  }
  cos(): Value {
    return this.graph.node("Cos", [this], this.shape);
  }
  silu(): Value {
    return this.mul(this.graph.node("Sigmoid", [this], this.shape));
  }

  relu(): Value {
    return this.graph.node("Relu", [this], this.shape);
  }
  /** x tanh(ln(1 + exp x)) */
  mish(): Value {
    return this.graph.node("Mish", [this], this.shape);
  }

  /** Gaussian error linear unit, exact or by its tanh approximation. */
  gelu(approximate: "none" | "tanh"): Value {
    return this.graph.node("Gelu", [this], this.shape, { attributes: { approximate } });
  }

  /** [..., M, K] x [..., K, N] with broadcast batch axes. */
  matMul(other: Value): Value {
    const [m, k] = this.shape.slice(-2);
    const [k2, n] = other.shape.slice(-2);
    if (m === undefined || n === undefined || k !== k2) {
      throw new FemoError("E_GRAPH", `matMul: ${formatShape(this.shape)} x ${formatShape(other.shape)} do not fit`);
    }
    const batch = broadcast(this.shape.slice(0, -2), other.shape.slice(0, -2), "matMul");
    return this.graph.node("MatMul", [this, other], [...batch, m, n]);
  }

  /** x x^T over the last axis, [B, M, K] to [B, M, M], without a transposed copy. */
  gram(): Value {
    const [batch, rows] = this.shape as [Dim, Dim];
    return this.graph.node("FusedMatMul", [this, this], [batch, rows, rows], {
      domain: "com.microsoft",
      attributes: { transB: 1 },
    });
  }

  /** x W^T + b as PyTorch's Linear: this [..., in], weight [out, in], bias [out]. */
  linear(weight: Value, bias: Value | null): Value {
    const width = this.shape.at(-1) as Dim;
    const [out, input] = weight.shape;
    if (out === undefined || input !== width) {
      throw new FemoError(
        "E_GRAPH",
        `linear: ${formatShape(this.shape)} does not fit weight ${formatShape(weight.shape)}`,
      );
    }
    if (bias && formatShape(bias.shape) !== formatShape([out])) {
      throw new FemoError(
        "E_GRAPH",
        `linear: bias ${formatShape(bias.shape)} does not fit weight ${formatShape(weight.shape)}`,
      );
    }
    const leading = this.shape.slice(0, -1);
    const rows = this.rank === 2 ? this : this.reshape([productDim(leading), width]);
    const inputs = bias ? [rows, weight, bias] : [rows, weight];
    const y = this.graph.node("Gemm", inputs, [rows.shape[0] as Dim, out], { attributes: { transB: 1 } });
    return this.rank === 2 ? y : y.reshape([...leading, out]);
  }

  /** Normalised over the last axis; without scale and bias as in adaLN. */
  layerNorm(epsilon: number, scale?: Value, bias?: Value): Value {
    const width = this.shape.at(-1) as number;
    for (const parameter of [scale, bias]) {
      if (parameter && formatShape(parameter.shape) !== formatShape([width])) {
        throw new FemoError(
          "E_GRAPH",
          `layerNorm: ${formatShape(parameter.shape)} does not fit ${formatShape(this.shape)}`,
        );
      }
    }
    const ones = scale ?? this.graph.constant(new Float32Array(width).fill(1), [width]);
    const inputs = bias ? [this, ones, bias] : [this, ones];
    return this.graph.node("LayerNormalization", inputs, this.shape, {
      attributes: { axis: -1, epsilon: { float: epsilon } },
    });
  }

  /** Divided by the root of the mean square over the last axis, then scaled: RMSNorm. */
  rmsNorm(epsilon: number, scale: Value): Value {
    if (formatShape(scale.shape) !== formatShape(this.shape.slice(-1))) {
      throw new FemoError(
        "E_GRAPH",
        `rmsNorm: scale ${formatShape(scale.shape)} does not fit ${formatShape(this.shape)}`,
      );
    }
    return this.graph.node("SimplifiedLayerNormalization", [this, scale], this.shape, {
      attributes: { axis: -1, epsilon: { float: epsilon } },
    });
  }

  /**
   * Rotary position embedding of [B, T, D] in `heads` parts of D: neighbours (2i, 2i + 1) of each head turn by the
   * token's i-th angle.
   * @param cos cosines of the angles, [T, D / heads / 2]; `sin` the same of their sines
   */
  rotary(cos: Value, sin: Value, heads: number): Value {
    const [, tokens, width] = this.shape as [Dim, Dim, number];
    const wanted = formatShape([tokens, width / heads / 2]);
    if (this.rank !== 3 || formatShape(cos.shape) !== wanted || formatShape(sin.shape) !== wanted) {
      const [x, c, s] = [this, cos, sin].map(({ shape }) => formatShape(shape));
      throw new FemoError("E_GRAPH", `rotary: angles ${c} and ${s} do not fit ${x} in ${heads} heads`);
    }
    const first = this.graph.integers([0]); // of the angles' rows
    return this.graph.node("RotaryEmbedding", [this, first, cos, sin], this.shape, {
      domain: "com.microsoft",
      attributes: { interleaved: 1, num_heads: heads },
    });
  }

  /** Softmax attention of this (queries, [B, T, D]) over keys and values [B, S, D], in `heads` parts of D. */
  attention(key: Value, value: Value, heads: number): Value {
    const width = this.shape.at(-1) as number;
    if (this.rank !== 3 || width % heads !== 0) {
      throw new FemoError("E_GRAPH", `attention: queries ${formatShape(this.shape)} do not split into ${heads} heads`);
    }
    const fits = key.rank === 3 && key.shape[0] === this.shape[0] && key.shape[2] === width;
    if (!fits || formatShape(key.shape) !== formatShape(value.shape)) {
      const [q, k, v] = [this, key, value].map(({ shape }) => formatShape(shape));
      throw new FemoError("E_GRAPH", `attention: queries ${q}, keys ${k} and values ${v} do not fit`);
    }
    return this.graph.node("MultiHeadAttention", [this, key, value], this.shape, {
      domain: "com.microsoft",
      attributes: { num_heads: heads },
    });
  }

  /** Convolution whose kernel is its stride, [B, C, H, W] to [B, D, H/p, W/p]: the patch embedding of ViT. */
  patchConv(weight: Value, bias: Value | null): Value {
    const [, channels, height, width] = this.shape as [Dim, number, number, number];
    const [, wanted, patch] = weight.shape as [number, number, number];
    if (channels !== wanted || height % patch !== 0 || width % patch !== 0) {
      throw new FemoError(
        "E_GRAPH",
        `patchConv: ${formatShape(this.shape)} does not split into patches of ${formatShape(weight.shape)}`,
      );
    }
    return this.conv(weight, bias, { stride: patch });
  }

  /**
   * Convolution, [B, C, H, W] with a weight [D, C, k, k] to [B, D, H', W'], zeros of `padding` around it. A symbolic
   * height or width passes if the convolution keeps it.
   */
  conv(weight: Value, bias: Value | null, { padding = 0, stride = 1 } = {}): Value {
    const [batch, channels, height, width] = this.shape as [Dim, Dim, Dim, Dim];
    const [out, wanted, kernel] = weight.shape as [number, number, number];
    const fits = this.rank === 4 && weight.rank === 4 && channels === wanted && kernel === weight.shape[3];
    if (!fits || (bias && formatShape(bias.shape) !== formatShape([out]))) {
      const given = [weight, ...(bias ? [bias] : [])].map(({ shape }) => formatShape(shape));
      throw new FemoError(
        "E_GRAPH",
        `conv: ${formatShape(this.shape)} does not fit weight and bias ${given.join(", ")}`,
      );
    }
    const growth = 2 * padding - kernel;
    const slid = (dim: Dim): Dim => {
      if (stride === 1 && growth === -1) return dim;
      const size = typeof dim === "number" ? Math.floor((dim + growth) / stride) + 1 : 0;
      if (size > 0) return size;
      throw new FemoError(
        "E_GRAPH",
        `conv: ${formatShape(this.shape)} has no known size after a kernel of ${kernel}, padding ${padding}, stride ${stride}`,
      );
    };
    return this.graph.node(
      "Conv",
      bias ? [this, weight, bias] : [this, weight],
      [batch, out, slid(height), slid(width)],
      {
        attributes: {
          kernel_shape: [kernel, kernel],
          pads: [padding, padding, padding, padding],
          strides: [stride, stride],
        },
      },
    );
  }

  /**
   * [B, C, H, W] normalised over C/groups channels and all pixels at a time, then scaled and shifted by channel.
   * ONNX's GroupNormalization is expanded by ONNX Runtime on CPU into reductions that take 1.5 to 2 times as long.
   */
  groupNorm(groups: number, epsilon: number, scale: Value, bias: Value): Value {
    const [batch, channels, ...area] = this.shape as [Dim, number, ...Dim[]];
    const fits = [scale, bias].every(({ shape }) => formatShape(shape) === formatShape([channels]));
    if (channels % groups !== 0 || !fits) {
      const [s, b] = [scale, bias].map(({ shape }) => formatShape(shape));
      throw new FemoError(
        "E_GRAPH",
        `groupNorm: ${formatShape(this.shape)} does not fit ${groups} groups with scale ${s} and bias ${b}`,
      );
    }
    const grouped = this.reshape([batch, groups, productDim([channels / groups, ...area])]);
    const [ones, zeros] = [1, 0].map((x) => this.graph.constant(new Float32Array(groups).fill(x), [groups])) as [
      Value,
      Value,
    ];
    const normal = this.graph.node("InstanceNormalization", [grouped, ones, zeros], grouped.shape, {
      attributes: { epsilon: { float: epsilon } },
    });
    const byChannel = [channels, ...area.map(() => 1)];
    return normal.reshapeAs(this).mul(scale.reshape(byChannel)).add(bias.reshape(byChannel));
  }

  /** Every pixel repeated, [B, C, H, W] to [B, C, f H, f W]. */
  upsampleNearest(factor: number): Value {
    const [batch, channels, ...area] = this.shape as [Dim, Dim, ...Dim[]];
    const scales = this.graph.constant(Float32Array.of(1, 1, ...area.map(() => factor)), [this.rank]);
    const shape = [batch, channels, ...area.map((dim) => productDim([factor, dim]))];
    return this.graph.node("Resize", [this, null, scales], shape, {
      attributes: { mode: "nearest", coordinate_transformation_mode: "asymmetric", nearest_mode: "floor" },
    });
  }

  /** The same elements in another shape; one symbolic axis may move or change its factor. */
  reshape(shape: Shape): Value {
    if (!sameSize(this.shape, shape)) {
      throw new FemoError(
        "E_GRAPH",
        `reshape: ${formatShape(this.shape)} does not hold the elements of ${formatShape(shape)}`,
      );
    }
    const target = shape.map((dim, i) => (typeof dim === "number" ? dim : dim === this.shape[i] ? 0 : -1));
    if (target.filter((dim) => dim === -1).length > 1) {
      throw new FemoError(
        "E_GRAPH",
        `reshape: ${formatShape(this.shape)} to ${formatShape(shape)} moves two symbolic axes`,
      );
    }
    return this.graph.node("Reshape", [this, this.graph.integers(target)], shape);
  }

  /** The same elements in the shape that another value has when it runs, however many of its axes are symbolic. */
  reshapeAs(like: Value): Value {
    if (!sameSize(this.shape, like.shape)) {
      throw new FemoError(
        "E_GRAPH",
        `reshapeAs: ${formatShape(this.shape)} does not hold the elements of ${formatShape(like.shape)}`,
      );
    }
    const shape = this.graph.node("Shape", [like], [like.rank], { dtype: "int64" });
    return this.graph.node("Reshape", [this, shape], like.shape);
  }

  transpose(permutation: readonly number[]): Value {
    if (permutation.toSorted((a, b) => a - b).join() !== this.shape.map((_, i) => i).join()) {
      throw new FemoError(
        "E_GRAPH",
        `transpose: ${permutation} is not an order of the axes of ${formatShape(this.shape)}`,
      );
    }
    const shape = permutation.map((axis) => this.shape[axis] as Dim);
    return this.graph.node("Transpose", [this], shape, { attributes: { perm: permutation } });
  }

  /** Equal parts along an axis. */
  chunk(parts: number, axis: number): Value[] {
    const at = axis < 0 ? axis + this.rank : axis;
    const size = this.shape[at];
    if (typeof size !== "number" || size % parts !== 0) {
      throw new FemoError("E_GRAPH", `chunk: axis ${axis} of ${formatShape(this.shape)} does not split into ${parts}`);
    }
    const shapes = Array.from({ length: parts }, () => this.shape.with(at, size / parts));
    return this.graph.nodes("Split", [this], shapes, { attributes: { axis: at, num_outputs: parts } });
  }

  /** Parts of the given sizes along an axis. */
  split(sizes: readonly number[], axis: number): Value[] {
    const at = axis < 0 ? axis + this.rank : axis;
    if (this.shape[at] !== sizes.reduce((a, b) => a + b, 0)) {
      throw new FemoError("E_GRAPH", `split: axis ${axis} of ${formatShape(this.shape)} is not ${sizes.join(" + ")}`);
    }
    const shapes = sizes.map((size) => this.shape.with(at, size));
    return this.graph.nodes("Split", [this, this.graph.integers(sizes)], shapes, { attributes: { axis: at } });
  }

  concat(others: readonly Value[], axis: number): Value {
    const values = [this as Value, ...others];
    const at = axis < 0 ? axis + this.rank : axis;
    const rest = (value: Value): string => formatShape(value.shape.toSpliced(at, 1));
    const stranger = values.find((value) => value.rank !== this.rank || rest(value) !== rest(this));
    if (stranger) {
      const [a, b] = [this, stranger].map(({ shape }) => formatShape(shape));
      throw new FemoError("E_GRAPH", `concat: ${a} and ${b} differ in more than axis ${axis}`);
    }
    const size = values.map((value) => value.shape[at] as Dim).reduce(addDims);
    return this.graph.node("Concat", values, this.shape.with(at, size), { attributes: { axis: at } });
  }

  /** Rows of the first axis, by integer indices of any shape (a scalar drops the axis). */
  gather(indices: Value): Value {
    return this.graph.node("Gather", [this, indices], [...indices.shape, ...this.shape.slice(1)]);
  }

  /** A new axis of size one. */
  unsqueeze(axis: number): Value {
    const shape = this.shape.toSpliced(axis, 0, 1);
    return this.graph.node("Unsqueeze", [this, this.graph.integers([axis])], shape);
  }

  #binary(op: string, other: Value): Value {
    return this.graph.node(op, [this, other], broadcast(this.shape, other.shape, op));
  }
}
