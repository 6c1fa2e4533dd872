import type { Call, Calls } from "./quantized.js";
import type { Node, Value } from "./value.js";

/** Products with fewer rows than this leave most of a WebGPU kernel's tile of 32 rows empty. */
const FEW_ROWS = 5;

/**
 * What ONNX Runtime's WebGPU provider runs on the CPU, or in many times the time that its size asks for, in operators that
 * it runs well.
 * @returns undefined for what runs well as it is
 */
export function gpuCalls(node: Node, nameOf: (value: Value) => string): Calls | undefined {
  switch (node.op) {
    case "MatMul":
    case "FusedMatMul":
      return product(node, nameOf);
    case "SpaceToDepth":
      return spaceToDepth(node, nameOf);
  }
  return undefined;
}

/**
 * Squares of pixels as channels, [B, C, b H, b W] to [B, b b C, H, W]. In a reshape an axis that is not known before the
 * graph runs can only stay where it is (0), and one other be what is left (-1): so they go to its ends one after the other.
 */
function spaceToDepth({ inputs, outputs, attributes }: Node, nameOf: (value: Value) => string): Calls {
  const made = new Made(nameOf((outputs as [Value])[0]));
  const block = Number(attributes.blocksize);
  const reshape = (x: string, shape: readonly number[]): string => made.call("Reshape", [x, made.shape(shape)]);
  const transpose = (x: string, perm: readonly number[]): string => made.call("Transpose", [x], { perm });
  const columns = reshape(nameOf((inputs as [Value])[0]), [0, 0, 0, -1, block]); // [B, C, b H, W, b]
  const rows = reshape(transpose(columns, [0, 1, 3, 4, 2]), [0, 0, 0, 0, -1, block]); // [B, C, W, b, H, b]
  const squares = reshape(transpose(rows, [0, 4, 2, 5, 3, 1]), [0, 0, 0, -1]); // [B, H, W, b b C]
  made.last("Transpose", [squares], { perm: [0, 3, 1, 2] });
  return made;
}

/** Products of forecasts, inner products of features, averages. */
function product({ op, inputs, outputs, attributes }: Node, nameOf: (value: Value) => string): Calls | undefined {
  const [left, right] = inputs as [Value, Value];
  const [output] = outputs as [Value];
  const made = new Made(nameOf(output));
  const [swapLeft, swapRight] = [attributes.transA === 1, attributes.transB === 1];
  const rows = left.shape.at(swapLeft ? -1 : -2);
  const isSmall = typeof rows === "number" && rows < FEW_ROWS && left.rank > 1 && right.rank > 1;
  if (isSmall) {
    // [.., M, K] x [.., K, N] as the sum over K of [.., M, K, 1] [.., 1, K, N]; with K last where the right side has it last.
    const [a, b] = [swapLeft ? made.swapped(left.rank, nameOf(left)) : nameOf(left), nameOf(right)];
    const across = made.call("Unsqueeze", [a, made.vector(swapRight ? -2 : -1)]);
    const along = made.call("Unsqueeze", [b, made.vector(-3)]);
    const products = made.call("Mul", [across, along]);
    made.last("ReduceSum", [products, made.vector(swapRight ? -1 : -2)], { keepdims: 0 });
    return made;
  }
  if (op === "MatMul") return undefined;
  const a = swapLeft ? made.swapped(left.rank, nameOf(left)) : nameOf(left);
  const b = swapRight ? made.swapped(right.rank, nameOf(right)) : nameOf(right);
  made.last("MatMul", [a, b]);
  return made;
}

class Made implements Calls {
  readonly calls: Call[] = [];
  readonly vectors: Record<string, readonly number[]> = {};
  readonly #output: string;

  /** @param output of the node in whose place the calls are */
  constructor(output: string) {
    this.#output = output;
  }

  call(op: string, inputs: readonly string[], attributes: Call["attributes"] = {}): string {
    const output = `${this.#output}:${this.calls.length}`;
    this.calls.push({ op, inputs, outputs: [output], attributes });
    return output;
  }

  last(op: string, inputs: readonly string[], attributes: Call["attributes"] = {}): void {
    this.calls.push({ op, inputs, outputs: [this.#output], attributes });
  }

  /** With the last two axes swapped. */
  swapped(rank: number, input: string): string {
    const perm = Array.from({ length: rank }, (_, i) => i)
      .with(-1, rank - 2)
      .with(-2, rank - 1);
    return this.call("Transpose", [input], { perm });
  }

  vector(axis: number): string {
    const name = `axis:${axis}`;
    this.vectors[name] = [axis];
    return name;
  }

  shape(sizes: readonly number[]): string {
    const name = `shape:${sizes.join()}`;
    this.vectors[name] = sizes;
    return name;
  }
}
