import { FemoError } from "../errors.js";
import { Graph, toOnnx, type WeightStorage } from "../graph/index.js";
import { Checkpoint, DTYPE_BITS, matrixInBits, type TensorInfo } from "../weights/index.js";
import type { Engine } from "./engine.js";
import { quantizedLocation } from "./graph-writer.js";

/** Bits of a linear layer's weight. */
type WeightBits = 32 | 8 | 4;

const PRODUCTS = 4;
const ROUNDS = 3;
/** Products that take longer say enough of a device. */
const ENOUGH_MS = 20;
const WIDTHS = [256, 512, 1024, 2048];

/**
 * The rate of linear layers in float32 of some width, with as many rows; of the first width that keeps the
 * device busy for a while. It takes about a second.
 * @returns 10^9 floating-point operations a second
 */
export const productRate = (engine: Engine): Promise<number> => rateOf(engine, 32);

/** The same of layers whose weights are in few bits; undefined where the device has no such product. */
export async function fewBitsRate(engine: Engine, bits: 8 | 4): Promise<number | undefined> {
  try {
    return await rateOf(engine, bits);
  } catch (error) {
    if (error instanceof FemoError) return undefined;
    throw error;
  }
}

async function rateOf(engine: Engine, bits: WeightBits): Promise<number> {
  let rate = 0;
  for (const width of WIDTHS) {
    const ms = await productMs(engine, width, bits);
    rate = (2 * width ** 3 * PRODUCTS) / ms / 1e6;
    if (ms > ENOUGH_MS) break;
  }
  return rate;
}

/** Milliseconds of some layers, one after the other, of tensors that stay with the engine; the best of some rounds. */
async function productMs(engine: Engine, width: number, bits: WeightBits): Promise<number> {
  const shape = [width, width];
  const graph = new Graph();
  const weight = graph.weight("weight", shape);
  let product = graph.input("x", shape);
  for (let i = 0; i < PRODUCTS; i++) product = product.linear(weight, null);
  graph.output("y", product.mean([0, 1])); // a number: no matrix crosses to here
  const { storage, bytes } = zeros(shape, bits);
  const model = toOnnx(graph, () => storage, { target: engine.target });
  const session = await engine.load({ model, files: [{ name: FILE, at: bytes }] });
  try {
    await engine.holdZeros({ [HELD]: shape });
    const times: number[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      const { durationMs } = await session.run({ feeds: { x: { held: HELD } }, fetch: ["y"] });
      if (round > 0) times.push(durationMs); // the first compiles kernels
    }
    return Math.min(...times);
  } finally {
    await engine.free([HELD]);
    await session.release();
  }
}

const FILE = "zeros";
const HELD = "product-rate";

/** A weight of zeros, and its file. */
function zeros(shape: readonly number[], bits: WeightBits): { storage: WeightStorage; bytes: Uint8Array } {
  let byteLength = 0;
  const part = ({ dtype, shape: own }: Pick<TensorInfo, "dtype" | "shape">) => {
    const offset = byteLength;
    const size = own.reduce((a, b) => a * b, DTYPE_BITS[dtype] / 8);
    byteLength += size;
    return { file: FILE, offset, byteLength: size, dtype, shape: own };
  };
  const whole = { name: "weight", dtype: "float32", shape, file: FILE, offset: 0, byteLength: 0 } as const;
  const storage =
    bits === 32
      ? part(whole)
      : quantizedLocation(matrixInBits(Checkpoint.fromTensors(FILE, [whole]), whole.name, bits), part);
  return { storage, bytes: new Uint8Array(byteLength) };
}
