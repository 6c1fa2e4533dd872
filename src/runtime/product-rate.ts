import { blockShapes, Graph, toOnnx, type WeightStorage } from "../graph/index.js";
import { formatInBits } from "../weights/index.js";
import type { Engine } from "./engine.js";

/** Bits of a linear layer's weight. */
export type ProductBits = 32 | 8 | 4;

const PRODUCTS = 4;
const ROUNDS = 3;
/** Products that take longer say enough of a device. */
const ENOUGH_MS = 20;
const WIDTHS = [256, 512, 1024, 2048];

/**
 * The rate of linear layers of some width, with as many rows, whose weights are in these bits; of the first width that
 * keeps the device busy for a while. It takes about a second.
 * @returns 10^9 floating-point operations a second
 * @throws FemoError E_RUNTIME if the device has no such product
 */
export async function productRate(engine: Engine, bits: ProductBits = 32): Promise<number> {
  let rate = 0;
  for (const width of WIDTHS) {
    const ms = await productMs(engine, width, bits);
    rate = (2 * width ** 3 * PRODUCTS) / ms / 1e6;
    if (ms > ENOUGH_MS) break;
  }
  return rate;
}

/** Milliseconds of some layers, one after the other, of tensors that stay with the engine; the best of some rounds. */
async function productMs(engine: Engine, width: number, bits: ProductBits): Promise<number> {
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
function zeros(shape: readonly number[], bits: ProductBits): { storage: WeightStorage; bytes: Uint8Array } {
  let byteLength = 0;
  const part = (dtype: "float32" | "uint8", partShape: readonly number[]) => {
    const offset = byteLength;
    const size = partShape.reduce((a, b) => a * b, dtype === "float32" ? 4 : 1);
    byteLength += size;
    return { file: FILE, offset, byteLength: size, dtype, shape: partShape };
  };
  const packed = (format: ReturnType<typeof formatInBits>): WeightStorage => {
    const shapes = blockShapes("weight", shape, format, false);
    return {
      ...{ bits: format.bits, block: format.block },
      values: part("uint8", shapes.values),
      scales: part("float32", shapes.scales),
      zeros: format.has.includes("zeros") ? part("uint8", shapes.zeros) : undefined,
    };
  };
  const storage = bits === 32 ? part("float32", shape) : packed(formatInBits(bits));
  return { storage, bytes: new Uint8Array(byteLength) };
}
