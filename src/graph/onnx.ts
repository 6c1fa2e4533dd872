import { FemoError } from "../errors.js";
import type { BlockFormat } from "../weights/index.js";
import { gpuCalls } from "./gpu.js";
import type { Graph } from "./graph.js";
import { nodesInHalf, type Precision } from "./half.js";
import { blockShapes, type Calls, checkUse, type QuantizedNames, quantizedLinear } from "./quantized.js";
import { formatShape, type Shape } from "./shape.js";
import { type Attribute, DATA_TYPE, type DType, type Node, type Value } from "./value.js";

/** Where the bytes of a weight lie: a file beside the model, little-endian, dense. */
export interface WeightLocation {
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
  /** float32, or another of `WEIGHT_TYPE`, which becomes float32 when the model is loaded; uint8 in `QuantizedLocation`. */
  readonly dtype: string;
  readonly shape: readonly number[];
}

/** Where the parts of a weight [out, in] lie that is stored in few bits (`QuantizedMatrix`). */
export interface QuantizedLocation extends BlockFormat {
  /** uint8 [out, blocks, block * bits / 8] */
  readonly values: WeightLocation;
  /** float32 [out, blocks] */
  readonly scales: WeightLocation;
  /** uint8 [out, blocks * bits / 8 rounded up] */
  readonly zeros?: WeightLocation | undefined;
  /** float32 [out, blocks] */
  readonly minimums?: WeightLocation | undefined;
}

/** How a weight is stored decides which operator a linear layer becomes. */
export type WeightStorage = WeightLocation | QuantizedLocation;

/** What a weight may be stored as; all but float32 become it through a Cast. */
const WEIGHT_TYPE: ReadonlyMap<string, number> = new Map([
  ...(["float32", "float16", "bfloat16", "float64"] as const).map((dtype) => [dtype, DATA_TYPE[dtype]] as const),
  ["float8_e4m3fn", 17],
  ["float8_e5m2", 19],
]);
const UINT8 = 2;
const OPSET = 21;
const IR_VERSION = 10;

/** For what a graph is written: some operators that a CPU runs best a GPU runs slowly, or not at all. */
export type Target = "cpu" | "gpu";

export interface OnnxOptions {
  /** Default: "cpu". */
  readonly target?: Target | undefined;
  /** Inputs and outputs are float32 in either. Default: "float32". */
  readonly precision?: Precision | undefined;
}

/**
 * The graph as a serialised ONNX ModelProto. Weights stay in the checkpoint's own files: each initialiser points at
 * its bytes (`external_data`), and half-precision ones pass through a Cast that the runtime folds when it loads them.
 * Linear layers whose weight is stored in few bits become products of whole numbers.
 * @throws FemoError E_WEIGHT if a weight has no location, another shape there or another type than these; E_GRAPH if one
 *   stored in few bits is not the weight of a linear layer
 */
export function toOnnx(
  graph: Graph,
  locate: (tensor: string) => WeightStorage | undefined,
  { target = "cpu", precision = "float32" }: OnnxOptions = {},
): Uint8Array {
  const { nodes, inputs, weights, constants } = graph.reachable();
  const message = new Writer();
  const casts = new Map<string, string>(); // name in the graph -> name as stored
  const quantized = new Map<string, QuantizedNames>();
  const vectors = new Set<string>();
  for (const weight of weights) {
    const location = locate(weight.name);
    if (location && "scales" in location) {
      quantized.set(weight.name, quantizedTensors(message, weight, location));
      continue;
    }
    const place = checkPlace(weight.name, weight.shape, location, [...WEIGHT_TYPE.keys()]);
    const stored = place.dtype === weight.dtype ? weight.name : `${weight.name}:${place.dtype}`;
    message.message(5, externalTensor(stored, place, WEIGHT_TYPE.get(place.dtype) as number));
    if (stored !== weight.name) casts.set(weight.name, stored);
  }
  for (const constant of constants) message.message(5, inlineTensor(constant));
  const tables = tablesOf(
    nodes,
    graph.outputs.map(({ value }) => value.name),
  );
  const half = precision === "float16" ? nodesInHalf(nodes, (name) => quantized.has(name)) : new Set<Node>();
  const whole = new Set(nodes.flatMap((node) => (half.has(node) ? [] : node.inputs.map((input) => input?.name))));
  for (const { value } of graph.outputs) whole.add(value.name);
  for (const [name, stored] of casts) {
    if (!tables.has(name) && whole.has(name)) message.message(1, cast(stored, name, "float32"));
  }
  const outputNames = namesOfOutputs(graph);
  const nameIn = namesIn(half, casts, outputNames, (made) => message.message(1, made));
  const nameOfWhole = (value: Value): string => nameIn(value, "float32");
  for (const node of nodes) {
    checkUse(node, (name) => quantized.get(name)?.bits);
    const dtype = half.has(node) ? "float16" : "float32";
    const nameOf = (value: Value): string => nameIn(value, dtype);
    const made =
      (target === "gpu" && gpuCalls(node, nameOf)) ||
      callsOf(node, nameOf, {
        matrix: quantized.get(node.inputs[1]?.name ?? ""),
        table:
          node.op === "Gather" && tables.has(node.inputs[0]?.name ?? "")
            ? casts.get(node.inputs[0]?.name ?? "")
            : undefined,
      });
    for (const [name, vector] of Object.entries(made.vectors)) {
      if (!vectors.has(name)) message.message(5, int64Vector(name, vector));
      vectors.add(name);
    }
    for (const { op, domain, inputs, outputs, attributes } of made.calls) {
      message.message(1, call(op, inputs, outputs, attributes, domain));
    }
    // What is given out is converted here: behind all else, it would be held until then.
    for (const output of node.outputs) if (outputNames.has(output)) nameOfWhole(output);
  }
  message.string(2, "femo");
  for (const input of inputs) message.message(11, valueInfo(input.name, input.dtype, input.shape));
  for (const { name, value } of graph.outputs) {
    if (nameOfWhole(value) !== name) message.message(1, call("Identity", [nameOfWhole(value)], [name], {}));
    // Without a shape: what the runtime knew of it could let it fuse, and round, otherwise than where it is not given out.
    message.message(12, valueInfo(name, value.dtype));
  }

  return new Writer()
    .integer(1, IR_VERSION)
    .string(2, "femo")
    .message(7, message)
    .message(8, new Writer().string(1, "").integer(2, OPSET))
    .message(8, new Writer().string(1, "com.microsoft").integer(2, 1))
    .bytes();
}

/**
 * What a value is called in float32 or float16. It is converted, once, if that is not its own.
 * @param half the nodes that compute in float16
 * @param stored what weights are called as they are stored, those that are not in float32
 * @param outputNames of what is given out, in float32
 */
function namesIn(
  half: ReadonlySet<Node>,
  stored: ReadonlyMap<string, string>,
  outputNames: ReadonlyMap<Value, string>,
  write: (cast: Writer) => void,
): (value: Value, dtype: Precision) => string {
  const converted = new Set<string>();
  return (value, dtype) => {
    const isHalf = value.producer !== null && half.has(value.producer);
    const given = outputNames.get(value);
    const own = isHalf ? value.name : (given ?? value.name);
    if (value.dtype !== "float32" || isHalf === (dtype === "float16")) return own;
    const source = stored.get(value.name) ?? own;
    const name = dtype === "float32" && given ? given : `${value.name}:${dtype}`;
    if (name !== source && !converted.has(name)) write(cast(source, name, dtype));
    converted.add(name);
    return name;
  };
}

/** Names of what is only read row by row. Such a weight is taken as it is stored, and its rows become float32: not all of it. */
function tablesOf(nodes: readonly Node[], outputs: readonly string[]): ReadonlySet<string> {
  const others = new Set(outputs);
  const tables = new Set<string>();
  for (const { op, inputs } of nodes) {
    for (const [i, input] of inputs.entries())
      if (input) (op === "Gather" && i === 0 ? tables : others).add(input.name);
  }
  return new Set([...tables].filter((name) => !others.has(name)));
}

/** @param stored how its weights are stored, if not in float32 */
function callsOf(
  node: Node,
  nameOf: (value: Value) => string,
  { matrix, table }: { readonly matrix: QuantizedNames | undefined; readonly table: string | undefined },
): Calls {
  if (matrix) return quantizedLinear(node, nameOf, matrix);
  return table === undefined ? plainCall(node, nameOf) : storedRows(node, nameOf, table);
}

/** Rows of a table in the type in which it is stored, then in float32. */
function storedRows(node: Node, nameOf: (value: Value) => string, table: string): Calls {
  const { calls, vectors } = plainCall(node, nameOf);
  const [gather] = calls as [Calls["calls"][number]];
  const [output] = gather.outputs as [string];
  const rows = `${output}:stored`;
  const cast = { op: "Cast", domain: "", inputs: [rows], outputs: [output], attributes: { to: DATA_TYPE.float32 } };
  return { calls: [{ ...gather, inputs: [table, ...gather.inputs.slice(1)], outputs: [rows] }, cast], vectors };
}

const cast = (from: string, to: string, dtype: Precision): Writer =>
  call("Cast", [from], [to], { to: DATA_TYPE[dtype] });

/**
 * A computed value goes by the name of the first output that gives it out. A copy of it would be made after everything
 * else, and all values that are given out would be held until then. Inputs, and values given out again, are copied.
 */
function namesOfOutputs(graph: Graph): Map<Value, string> {
  const found = new Map<Value, string>();
  for (const { name, value } of graph.outputs) {
    if (value.producer && !found.has(value)) found.set(value, name);
  }
  return found;
}

/** Adds the parts of a weight in few bits, and says what they are called. */
function quantizedTensors(message: Writer, { name, shape }: Value, location: QuantizedLocation): QuantizedNames {
  const { bits, block, values, scales, zeros, minimums } = location;
  const shapes = blockShapes(name, shape as readonly number[], location, minimums !== undefined);
  const add = (part: "values" | "scales" | "zeros" | "minimums", place: WeightLocation): string => {
    const [own, type] = [`${name}:${part}`, part === "values" || part === "zeros" ? "uint8" : "float32"] as const;
    checkPlace(own, shapes[part], place, [type]);
    message.message(5, externalTensor(own, place, type === "uint8" ? UINT8 : DATA_TYPE.float32));
    return own;
  };
  return {
    ...{ bits, block },
    values: add("values", values),
    scales: add("scales", scales),
    zeros: zeros && add("zeros", zeros),
    minimums: minimums && add("minimums", minimums),
  };
}

const plainCall = ({ op, domain, inputs, outputs, attributes }: Node, nameOf: (value: Value) => string): Calls => ({
  calls: [
    {
      ...{ op, domain, attributes },
      inputs: inputs.map((input) => (input ? nameOf(input) : "")),
      outputs: outputs.map(nameOf),
    },
  ],
  vectors: {},
});

function checkPlace(
  name: string,
  shape: Shape,
  location: WeightLocation | undefined,
  dtypes: readonly string[],
): WeightLocation {
  if (!location || formatShape(location.shape) !== formatShape(shape)) {
    throw new FemoError(
      "E_WEIGHT",
      `${name}: expected ${formatShape(shape)}, found ${location ? formatShape(location.shape) : "nothing"}`,
    );
  }
  if (!dtypes.includes(location.dtype)) {
    throw new FemoError(
      "E_WEIGHT",
      `${name}: expected ${dtypes.join(", ")}, found ${location.dtype}. Convert the checkpoint to one of them.`,
    );
  }
  return location;
}

function externalTensor(name: string, { file, offset, byteLength, shape }: WeightLocation, type: number): Writer {
  const tensor = new Writer().packed(1, shape).integer(2, type).string(8, name);
  for (const [key, value] of Object.entries({ location: file, offset, length: byteLength })) {
    tensor.message(13, new Writer().string(1, key).string(2, String(value)));
  }
  return tensor.integer(14, 1); // data_location = EXTERNAL
}

function inlineTensor(value: Value): Writer {
  if (value.origin?.kind !== "constant") throw new FemoError("E_GRAPH", `${value.name} is not a constant`);
  const { data } = value.origin;
  return new Writer()
    .packed(1, value.shape as readonly number[])
    .integer(2, DATA_TYPE[value.dtype])
    .string(8, value.name)
    .raw(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

function int64Vector(name: string, vector: readonly number[]): Writer {
  const data = BigInt64Array.from(vector, BigInt);
  return new Writer()
    .packed(1, [vector.length])
    .integer(2, DATA_TYPE.int64)
    .string(8, name)
    .raw(9, new Uint8Array(data.buffer));
}

function call(
  op: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Readonly<Record<string, Attribute>>,
  domain = "",
): Writer {
  const proto = new Writer();
  for (const input of inputs) proto.string(1, input);
  for (const output of outputs) proto.string(2, output);
  proto.string(4, op);
  for (const [name, value] of Object.entries(attributes)) proto.message(5, attributeProto(name, value));
  return proto.string(7, domain);
}

function attributeProto(name: string, value: Attribute): Writer {
  const proto = new Writer().string(1, name);
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) {
      throw new FemoError(
        "E_GRAPH",
        `attribute ${name}: expected an integer, found ${value}: write { float } for others`,
      );
    }
    return proto.integer(3, value).integer(20, 2); // INT
  }
  if (typeof value === "string") return proto.string(4, value).integer(20, 3); // STRING
  if ("float" in value) return proto.float(2, value.float).integer(20, 1); // FLOAT
  return proto.packed(8, value).integer(20, 7); // INTS
}

function valueInfo(name: string, dtype: DType, shape?: Shape): Writer {
  const dims = new Writer();
  for (const dim of shape ?? []) {
    dims.message(1, typeof dim === "number" ? new Writer().integer(1, dim) : new Writer().string(2, dim));
  }
  const tensorType = new Writer().integer(1, DATA_TYPE[dtype]);
  if (shape) tensorType.message(2, dims);
  return new Writer().string(1, name).message(2, new Writer().message(1, tensorType));
}

/** Protocol Buffers wire format, the part that ONNX needs. */
class Writer {
  readonly #chunks: Uint8Array[] = [];
  #length = 0;

  integer(field: number, value: number): this {
    return this.#varint(field * 8).#varint(value);
  }
  float(field: number, value: number): this {
    return this.#varint(field * 8 + 5).#push(new Uint8Array(Float32Array.of(value).buffer));
  }
  string(field: number, value: string): this {
    return this.raw(field, new TextEncoder().encode(value));
  }
  packed(field: number, values: readonly number[]): this {
    const list = new Writer();
    for (const value of values) list.#varint(value);
    return this.message(field, list);
  }
  raw(field: number, bytes: Uint8Array): this {
    return this.#varint(field * 8 + 2)
      .#varint(bytes.length)
      .#push(bytes);
  }
  message(field: number, inner: Writer): this {
    this.#varint(field * 8 + 2).#varint(inner.#length);
    for (const chunk of inner.#chunks) this.#push(chunk);
    return this;
  }

  bytes(): Uint8Array {
    const out = new Uint8Array(this.#length);
    let at = 0;
    for (const chunk of this.#chunks) {
      out.set(chunk, at);
      at += chunk.length;
    }
    return out;
  }

  #varint(value: number): this {
    const bytes: number[] = [];
    let rest = BigInt.asUintN(64, BigInt(value));
    do {
      bytes.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
      rest >>= 7n;
    } while (rest > 0n);
    return this.#push(Uint8Array.from(bytes));
  }

  #push(chunk: Uint8Array): this {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    return this;
  }
}
