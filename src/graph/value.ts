import { FemoError } from "../errors.js";
import {
  addDims,
  broadcast,
  type Dim,
  divideDim,
  formatShape,
  isMultiple,
  mayBeEmpty,
  productDim,
  type Shape,
  sameSize,
} from "./shape.js";

export type DType = "float32" | "float16" | "bfloat16" | "float64" | "int64" | "int32" | "bool";

/** The numbers that ONNX has for them (onnx.proto3: TensorProto.DataType). */
export const DATA_TYPE: Readonly<Record<DType, number>> = {
  float32: 1,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  float64: 11,
  bfloat16: 16,
};
export type Attribute = number | string | readonly number[] | { readonly float: number };

/** A part of a computation, as who writes it names it. */
export interface Part {
  readonly kind: string;
  readonly name: string;
}

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
  /** The parts in which it was made (`Graph.within`), outermost first. */
  readonly parts: readonly Part[];
}

/** Where a value comes from; a node's outputs have none of these. */
export type Origin =
  | { kind: "input" }
  | { kind: "weight"; tensor: string }
  | { kind: "constant"; data: Float32Array | BigInt64Array };

export interface NodeOptions {
  domain?: string;
  /** Of the outputs; default: that of the first input. */
  dtype?: DType;
  attributes?: Record<string, Attribute>;
}

/** How attention departs from softmax(q k^T / sqrt(width of a head)) v. */
export interface AttentionOptions {
  /** Added to the scaled scores, [1 or B, 1 or heads, T, S]. */
  readonly bias?: Value;
  /** Queries see the keys up to their own place only. */
  readonly causal?: boolean;
  /** What scores are multiplied by, not 0. Default: one over the root of a head's width. */
  readonly scale?: number;
}

/** Zeros around an axis, or before and behind it. */
export type Padding = number | readonly [before: number, behind: number];

export interface ConvOptions {
  /** Of height and width alike, or of each. Default: 0. */
  readonly padding?: Padding | { readonly height: Padding; readonly width: Padding };
  /** Default: 1. */
  readonly stride?: number;
}

export interface PoolOptions {
  /** Pixels around height and width that count as nothing. Default: 0. */
  readonly padding?: number;
  /** Default: 1. */
  readonly stride?: number;
  /** Whether a window that is only partly inside counts too, at the right and below. Default: no. */
  readonly ceil?: boolean;
}

/** What lies before and behind height, and before and behind width. */
function paddings(padding: NonNullable<ConvOptions["padding"]>): (readonly [before: number, behind: number])[] {
  const both = (one: Padding): readonly [number, number] => (typeof one === "number" ? [one, one] : one);
  return typeof padding === "object" && "height" in padding
    ? [both(padding.height), both(padding.width)]
    : [both(padding), both(padding)];
}

/** What values append their nodes to: a graph. */
export interface Builder {
  constant(data: Float32Array | BigInt64Array, shape: readonly number[]): Value;
  scalar(x: number): Value;
  /** int64, [length] */
  integers(values: readonly number[]): Value;
  node(op: string, inputs: readonly (Value | null)[], shape: Shape, options?: NodeOptions): Value;
  /** A node with several outputs. */
  nodes(op: string, inputs: readonly (Value | null)[], shapes: readonly Shape[], options?: NodeOptions): Value[];
}

/** A symbolic tensor: a name, a shape and the node that makes it. Methods append nodes and infer shapes. */
export class Value {
  producer: Node | null = null;

  constructor(
    readonly graph: Builder,
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

  div(other: Value): Value {
    return this.#binary("Div", other);
  }

  sqrt(): Value {
    return this.graph.node("Sqrt", [this], this.shape);
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

  abs(): Value {
    return this.graph.node("Abs", [this], this.shape);
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

  /** x sigmoid(1.702 x) */
  quickGelu(): Value {
    return this.graph.node("QuickGelu", [this], this.shape, {
      domain: "com.microsoft",
      attributes: { alpha: { float: 1.702 } },
    });
  }

  /** Integers below or above become the least or the greatest; int64. */
  clampIntegers(least: number, greatest: number): Value {
    const bounds = [least, greatest].map((x) => this.graph.constant(BigInt64Array.of(BigInt(x)), []));
    return this.graph.node("Clip", [this, ...bounds], this.shape);
  }

  /** exp x over its sum, along the last axis. */
  softmax(): Value {
    return this.graph.node("Softmax", [this], this.shape, { attributes: { axis: -1 } });
  }

  /** Over some axes, which keep a size of one. */
  mean(axes: readonly number[]): Value {
    return this.#reduce("ReduceMean", axes);
  }
  sum(axes: readonly number[]): Value {
    return this.#reduce("ReduceSum", axes);
  }
  max(axes: readonly number[]): Value {
    return this.#reduce("ReduceMax", axes);
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

  /** As `matMul`, with the last two axes of either side swapped on the way, without a transposed copy. */
  matMulSwapped(other: Value, { left = false, right = false }): Value {
    const swapped = (shape: Shape, swap: boolean): Shape =>
      swap ? [...shape.slice(0, -2), ...shape.slice(-2).reverse()] : shape;
    const [a, b] = [swapped(this.shape, left), swapped(other.shape, right)];
    if (a.length < 2 || b.length < 2 || a.at(-1) !== b.at(-2)) {
      throw new FemoError("E_GRAPH", `matMulSwapped: ${formatShape(a)} x ${formatShape(b)} do not fit`);
    }
    const batch = broadcast(a.slice(0, -2), b.slice(0, -2), "matMulSwapped");
    return this.graph.node("FusedMatMul", [this, other], [...batch, a.at(-2) as Dim, b.at(-1) as Dim], {
      domain: "com.microsoft",
      attributes: { transA: Number(left), transB: Number(right) },
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
    return this.rank === 2 ? y : y.reshape([...leading, out], this);
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

  /** Softmax attention of this (queries, [B, T, D]) over keys and values, [B, S, D] or [B, heads, S, D / heads], in `heads` parts of D. */
  attention(key: Value, value: Value, heads: number, options: AttentionOptions = {}): Value {
    const width = this.shape.at(-1) as number;
    if (this.rank !== 3 || width % heads !== 0) {
      throw new FemoError("E_GRAPH", `attention: queries ${formatShape(this.shape)} do not split into ${heads} heads`);
    }
    const [batch, ...parts] = key.shape;
    const [wide, split] = [
      [parts[0], width],
      [heads, parts[1], width / heads],
    ].map((wanted) => wanted.join());
    const fits = batch === this.shape[0] && [wide, split].includes(parts.join());
    if (!fits || formatShape(key.shape) !== formatShape(value.shape)) {
      const [q, k, v] = [this, key, value].map(({ shape }) => formatShape(shape));
      throw new FemoError("E_GRAPH", `attention: queries ${q}, keys ${k} and values ${v} do not fit`);
    }
    const { bias, causal = false, scale } = options;
    const scores = [batch, heads, this.shape[1], key.shape.at(-2)];
    const biasFits = bias?.shape.every((dim, axis) => dim === scores[axis] || (axis < 2 && dim === 1));
    if (bias && !(bias.rank === 4 && biasFits)) {
      throw new FemoError(
        "E_GRAPH",
        `attention: a bias of ${formatShape(bias.shape)} does not fit scores of [${scores.join(", ")}]`,
      );
    }
    const unused = [null, null]; // biases of the projections, a mask of keys
    return this.graph.node("MultiHeadAttention", [this, key, value, ...(bias ? [...unused, bias] : [])], this.shape, {
      domain: "com.microsoft",
      attributes: {
        num_heads: heads,
        ...(causal && { unidirectional: 1 }),
        ...(scale !== undefined && { scale: { float: scale } }),
      },
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
   * Convolution, [B, C, H, W] with a weight [D, C, k, l] to [B, D, H', W'], zeros of `padding` around it, or of so many
   * before and behind each axis. A symbolic height or width passes if the convolution keeps it or divides it by the stride.
   */
  conv(weight: Value, bias: Value | null, options: ConvOptions = {}): Value {
    const { padding = 0, stride = 1 } = options;
    const [batch, channels, ...area] = this.shape as [Dim, Dim, ...Dim[]];
    const [out, wanted, ...kernel] = weight.shape as [number, number, ...number[]];
    const fits = this.rank === 4 && weight.rank === 4 && channels === wanted;
    if (!fits || (bias && formatShape(bias.shape) !== formatShape([out]))) {
      const given = [weight, ...(bias ? [bias] : [])].map(({ shape }) => formatShape(shape));
      throw new FemoError(
        "E_GRAPH",
        `conv: ${formatShape(this.shape)} does not fit weight and bias ${given.join(", ")}`,
      );
    }
    const around = paddings(padding);
    const slid = area.map((dim, axis) => {
      const [before, behind] = around[axis] as readonly [number, number];
      const side = kernel[axis] as number;
      const growth = before + behind - side;
      if (growth === -1) return divideDim(dim, stride);
      if (growth === -stride && isMultiple(dim, stride)) return divideDim(dim, stride);
      const size = typeof dim === "number" ? Math.floor((dim + growth) / stride) + 1 : 0;
      if (size > 0) return size;
      throw new FemoError(
        "E_GRAPH",
        `conv: ${formatShape(this.shape)} has no known size after a kernel of ${side}, padding ${before} and ${behind}, stride ${stride}`,
      );
    });
    return this.graph.node("Conv", bias ? [this, weight, bias] : [this, weight], [batch, out, ...slid], {
      attributes: {
        kernel_shape: kernel,
        pads: [...around.map(([before]) => before), ...around.map(([, behind]) => behind)],
        strides: [stride, stride],
      },
    });
  }

  /** The mean of each window of k by k pixels of a known height and width, of those that are inside. */
  averagePool(kernel: number, options?: PoolOptions): Value {
    return this.#pool("AveragePool", kernel, options);
  }
  /** The greatest of each window of k by k pixels of a known height and width. */
  maxPool(kernel: number, options?: PoolOptions): Value {
    return this.#pool("MaxPool", kernel, options);
  }

  #pool(op: string, kernel: number, { padding = 0, stride = 1, ceil = false }: PoolOptions = {}): Value {
    const [batch, channels, ...area] = this.shape as [Dim, Dim, ...Dim[]];
    const slid = area.map((dim) => {
      const room = Number(dim) + 2 * padding - kernel;
      const steps = ceil ? Math.ceil(room / stride) : Math.floor(room / stride);
      // A window that begins behind the last pixel is none.
      return ceil && steps * stride >= Number(dim) + padding ? steps : steps + 1;
    });
    if (this.rank !== 4 || !slid.every((size) => size > 0) || 2 * padding > kernel) {
      throw new FemoError(
        "E_GRAPH",
        `${op}: ${formatShape(this.shape)} has no known size after windows of ${kernel}, padding ${padding}, stride ${stride}`,
      );
    }
    return this.graph.node(op, [this], [batch, channels, ...slid], {
      attributes: {
        kernel_shape: [kernel, kernel],
        pads: [padding, padding, padding, padding],
        strides: [stride, stride],
        ...(ceil && { ceil_mode: 1 }),
      },
    });
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

  /** Every pixel repeated as often as it takes, [B, C, H, W] to [B, C, H', W'] with the height and width of another. */
  resizeNearest(like: Value): Value {
    if (this.rank !== 4 || like.rank !== 4) {
      const [x, y] = [this, like].map(({ shape }) => formatShape(shape));
      throw new FemoError("E_GRAPH", `resizeNearest: expected images, found ${x} and ${y}`);
    }
    const [own, other] = [this.#sizes(0, 2), like.#sizes(2, 4)];
    return this.graph.node(
      "Resize",
      [this, null, null, own.concat([other], 0)],
      [...this.shape.slice(0, 2), ...like.shape.slice(2)],
      { attributes: { mode: "nearest", coordinate_transformation_mode: "asymmetric", nearest_mode: "floor" } },
    );
  }

  /**
   * The same elements in another shape. One symbolic axis may move or change its factor; further ones are read when the
   * graph runs from axes of `like` that have the same symbols.
   */
  reshape(shape: Shape, like?: Value): Value {
    if (!sameSize(this.shape, shape)) {
      throw new FemoError(
        "E_GRAPH",
        `reshape: ${formatShape(this.shape)} does not hold the elements of ${formatShape(shape)}`,
      );
    }
    const target = shape.map((dim, i) => (typeof dim === "number" ? dim : dim === this.shape[i] ? 0 : -1));
    if (target.filter((dim) => dim === -1).length <= 1) {
      return this.graph.node("Reshape", [this, this.graph.integers(target)], shape);
    }
    const empties = shape.some(mayBeEmpty); // a size of 0 that was read is one
    const sizes = target.map((dim, i) => {
      if (empties && dim === 0) return this.size(i);
      const axis = dim === -1 && like ? like.shape.indexOf(shape[i] as Dim) : -1;
      if (dim === -1 && axis < 0) {
        throw new FemoError(
          "E_GRAPH",
          `reshape: ${formatShape(this.shape)} to ${formatShape(shape)} moves two symbolic axes`,
        );
      }
      return axis < 0 ? this.graph.integers([dim]) : (like as Value).size(axis);
    });
    const [first, ...others] = sizes as [Value, ...Value[]];
    const attributes = empties ? { allowzero: 1 } : {};
    return this.graph.node("Reshape", [this, first.concat(others, 0)], shape, { attributes });
  }

  /** The size of an axis when the graph runs, int64 [1]. */
  size(axis: number): Value {
    return this.#sizes(axis, axis + 1);
  }

  /** 0, 1, ... along an axis when the graph runs, int64 [its size]. */
  positions(axis: number): Value {
    const [zero, one] = [0n, 1n].map((x) => this.graph.constant(BigInt64Array.of(x), [])) as [Value, Value];
    return this.graph.node("Range", [zero, this.size(axis).reshape([]), one], [this.shape[axis] as Dim]);
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

  /** Parts along an axis, each as long as one of the given values is along it. */
  splitLike(likes: readonly Value[], axis: number): Value[] {
    const sizes = likes.map((like) => like.shape[axis] as Dim);
    if (this.shape[axis] !== sizes.reduce(addDims)) {
      throw new FemoError(
        "E_GRAPH",
        `splitLike: axis ${axis} of ${formatShape(this.shape)} is not ${sizes.join(" + ")}`,
      );
    }
    const fixed = sizes.every((size) => typeof size === "number");
    const [first, ...others] = likes as [Value, ...Value[]];
    const lengths = fixed
      ? this.graph.integers(sizes as number[])
      : first.size(axis).concat(
          others.map((like) => like.size(axis)),
          0,
        );
    const shapes = sizes.map((size) => this.shape.with(axis, size));
    return this.graph.nodes("Split", [this, lengths], shapes, { attributes: { axis } });
  }

  /** Squares of `block` x `block` pixels as channels, [B, C, b H, b W] to [B, b b C, H, W]; the channel counts fastest. */
  spaceToDepth(block: number, height: Dim, width: Dim): Value {
    const [batch, channels, ...area] = this.shape as [Dim, number, Dim, Dim];
    if (formatShape(area) !== formatShape([height, width].map((dim) => productDim([block, dim])))) {
      throw new FemoError(
        "E_GRAPH",
        `spaceToDepth: ${formatShape(this.shape)} is not ${block} x [${height}, ${width}]`,
      );
    }
    const shape = [batch, block * block * channels, height, width];
    return this.graph.node("SpaceToDepth", [this], shape, { attributes: { blocksize: block } });
  }

  /** Channels as squares of pixels, [B, C b b, H, W] to [B, C, b H, b W]; the pixel counts fastest. */
  depthToSpace(block: number): Value {
    const [batch, depth, height, width] = this.shape as [Dim, number, Dim, Dim];
    const channels = depth / (block * block);
    if (this.rank !== 4 || !Number.isInteger(channels)) {
      throw new FemoError(
        "E_GRAPH",
        `depthToSpace: ${formatShape(this.shape)} does not split into squares of ${block}`,
      );
    }
    const shape = [batch, channels, productDim([block, height]), productDim([block, width])];
    return this.graph.node("DepthToSpace", [this], shape, { attributes: { blocksize: block, mode: "CRD" } });
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

  /** Which element along the last axis is the greatest, int64; the first of several. */
  argMax(): Value {
    return this.graph.node("ArgMax", [this], this.shape.slice(0, -1), {
      dtype: "int64",
      attributes: { axis: -1, keepdims: 0 },
    });
  }

  /** The same numbers as another type has them. */
  cast(dtype: "float32" | "float16"): Value {
    if (dtype === this.dtype) return this;
    return this.graph.node("Cast", [this], this.shape, { dtype, attributes: { to: DATA_TYPE[dtype] } });
  }

  /** Ones at integer indices and zeros elsewhere, along a new last axis. */
  oneHot(size: number): Value {
    const values = this.graph.constant(Float32Array.of(0, 1), [2]);
    return this.graph.node("OneHot", [this, this.graph.integers([size]), values], [...this.shape, size], {
      dtype: "float32",
    });
  }

  /** Zeros in the shape of the first axes. */
  zeros(axes: number): Value {
    return this.graph.node("ConstantOfShape", [this.#sizes(0, axes)], this.shape.slice(0, axes), { dtype: "float32" });
  }

  /**
   * Where the greatest elements along the last axis are, int64 [..., k], in no order.
   * @param count k, or k when the graph runs, int64 [1], which may be 0
   * @param size k as a dimension, where it is not known
   */
  topK(count: number | Value, size: Dim = Number(count)): Value {
    const length = this.shape.at(-1);
    if (typeof count === "number" && !(Number.isInteger(count) && count >= 1 && count <= Number(length))) {
      throw new FemoError(
        "E_GRAPH",
        `topK: ${formatShape(this.shape)} does not have ${count} elements along its last axis`,
      );
    }
    const k = typeof count === "number" ? this.graph.integers([count]) : count;
    const shape = this.shape.with(-1, size);
    const [, indices] = this.graph.nodes("TopK", [this, k], [shape, shape], {
      dtype: "int64", // of the indices; nobody reads the elements
      attributes: { axis: -1, largest: 1, sorted: 0 },
    });
    return indices as Value;
  }

  /**
   * Rows by int64 indices [B.., n] of each of the leading axes B.. that both have: [B.., rows, ...] to [B.., n, ...]. What
   * `gather` is without leading axes.
   */
  gatherRows(indices: Value): Value {
    const leading = indices.rank - 1;
    const fits = formatShape(indices.shape.slice(0, -1)) === formatShape(this.shape.slice(0, leading));
    if (!fits || leading >= this.rank || indices.dtype !== "int64") {
      const [x, i] = [this, indices].map(({ dtype, shape }) => `${dtype} ${formatShape(shape)}`);
      throw new FemoError("E_GRAPH", `gatherRows: indices ${i} do not fit ${x}`);
    }
    const shape = [...indices.shape, ...this.shape.slice(indices.rank)];
    return this.graph.node("GatherND", [this, indices.unsqueeze(indices.rank)], shape, {
      attributes: { batch_dims: leading },
    });
  }

  /**
   * With some rows of each sample replaced: [B, T, D], int64 [B, k] and [B, k, D]. ONNX Runtime on CPU copies whole rows
   * in ScatterND, and in ScatterElements one element after the other, which takes up to four times as long.
   */
  scatterRows(indices: Value, rows: Value): Value {
    if (indices.rank !== 2 || this.rank < 3 || indices.shape[0] !== this.shape[0] || indices.dtype !== "int64") {
      const [x, i] = [this, indices].map(({ dtype, shape }) => `${dtype} ${formatShape(shape)}`);
      throw new FemoError("E_GRAPH", `scatterRows: ${i} are not rows of each sample of ${x}`);
    }
    const wanted = formatShape([...indices.shape, ...this.shape.slice(2)]);
    if (formatShape(rows.shape) !== wanted) {
      throw new FemoError("E_GRAPH", `scatterRows: expected rows of ${wanted}, found ${formatShape(rows.shape)}`);
    }
    const { graph } = this;
    const samples = indices.positions(0).unsqueeze(1);
    const shape = graph.node("Shape", [indices], [2], { dtype: "int64" });
    const sample = graph.node("Expand", [samples, shape], indices.shape, { dtype: "int64" });
    const places = sample.unsqueeze(2).concat([indices.unsqueeze(2)], 2); // [B, k, 2]
    return graph.node("ScatterND", [this, places, rows], this.shape);
  }

  /** A new axis of size one. */
  unsqueeze(axis: number): Value {
    const shape = this.shape.toSpliced(axis, 0, 1);
    return this.graph.node("Unsqueeze", [this, this.graph.integers([axis])], shape);
  }

  /** The sizes of some axes, the last not included, int64. */
  #sizes(start: number, end: number): Value {
    return this.graph.node("Shape", [this], [end - start], { dtype: "int64", attributes: { start, end } });
  }

  #reduce(op: string, axes: readonly number[]): Value {
    const shape = this.shape.map((dim, axis) => (axes.includes(axis) ? 1 : dim));
    return this.graph.node(op, [this, this.graph.integers(axes)], shape, { attributes: { keepdims: 1 } });
  }

  #binary(op: string, other: Value): Value {
    return this.graph.node(op, [this, other], broadcast(this.shape, other.shape, op));
  }
}
