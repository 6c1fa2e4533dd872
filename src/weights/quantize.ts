import { FemoError } from "../errors.js";

/** Weights of a row that share a scale. */
export type BlockSize = 16 | 32 | 64 | 128;

/** How a matrix is kept in fewer bits. */
export interface BlockFormat {
  readonly bits: 4 | 8;
  readonly block: BlockSize;
}

/**
 * A matrix [rows, columns] in few bits: w = scale (q - zero) - minimum, with scale, zero and minimum of its block of a row.
 * The last block of a row is filled up.
 */
export interface QuantizedMatrix extends BlockFormat {
  /** q: [rows, blocks, block * bits / 8]; of 4 bits the first of two neighbours is the lower half of a byte. */
  readonly values: Uint8Array;
  /** [rows, blocks] */
  readonly scales: Float32Array;
  /**
   * [rows, blocks * bits / 8 rounded up], packed as the values are. Without them zero is 2^(bits - 1), the middle.
   */
  readonly zeros?: Uint8Array | undefined;
  /**
   * [rows, blocks]; without them 0. Rows are then of whole blocks. A product rounds its input where it multiplies with
   * scale (q - zero), so a format of w = scale q - m is better taken around the middle: minimum = m - zero scale.
   */
  readonly minimums?: Float32Array | undefined;
}

export const blocksOf = (columns: number, block: BlockSize): number => Math.ceil(columns / block);

/** Blocks of 128 are those that ONNX Runtime multiplies the fastest. */
export const INT8: BlockFormat = { bits: 8, block: 128 };
/** Larger blocks take less room and err more. */
export const INT4: BlockFormat = { bits: 4, block: 32 };

/**
 * Rounds each weight to the nearest of the 255 levels of its block of 128, which reach from -max to max of its
 * magnitudes, q from 1 to 255 around 128. The error is at most half a level, max / 254 (up to rounding of the scale to
 * float32); a block whose weights are whole multiples of a float32 scale, the largest of them 127, is exact.
 * @param weights row-major, rows x columns
 * @param name of the tensor, for messages
 * @throws FemoError E_WEIGHT if a weight is infinite or not a number
 */
export function quantizeInt8(weights: Float32Array, columns: number, name: string): QuantizedMatrix {
  const [zero, steps] = [128, 127];
  const values = new Uint8Array((weights.length / columns) * blocksOf(columns, INT8.block) * INT8.block).fill(zero);
  const scales = new Float32Array(values.length / INT8.block);
  eachBlock(weights.length, columns, INT8.block, (block, start, end) => {
    const [low, high] = range(weights, start, end, name);
    const scale = Math.fround(Math.max(-low, high) / steps);
    scales[block] = scale;
    if (scale === 0) return;
    const to = block * INT8.block - start;
    for (let i = start; i < end; i++) values[to + i] = Math.floor((weights[i] as number) / scale + zero + 0.5);
  });
  return { ...INT8, values, scales };
}

/** Shares of a block's range that its 16 levels may cover: to cut off what lies far out can leave a smaller error. */
const SHARES = [1, 0.92, 0.84];

/**
 * Rounds each weight to one of the 16 levels of its block of 32, one of which is zero. Levels and scale are chosen for the
 * least squared error among some ranges; the scale of each is that of least squares. So the error of a block, root mean
 * square, is at most a thirtieth of its range, zero included: half a step of levels that cover all of it.
 * @param weights row-major, rows x columns
 * @param name of the tensor, for messages
 * @throws FemoError E_WEIGHT if a weight is infinite or not a number
 */
export function quantizeInt4(weights: Float32Array, columns: number, name: string): QuantizedMatrix {
  const { block: size } = INT4;
  const [rows, blocks] = [weights.length / columns, blocksOf(columns, size)];
  const levels = new Uint8Array(size);
  const values = new Uint8Array((rows * blocks * size) / 2);
  const scales = new Float32Array(rows * blocks);
  const zeros = new Uint8Array(rows * Math.ceil(blocks / 2));
  eachBlock(weights.length, columns, size, (block, start, end) => {
    const [low, high] = range(weights, start, end, name);
    const { perStep, zero, scale } = bestLevels(weights, start, end, Math.min(low, 0), Math.max(high, 0));
    scales[block] = scale;
    levels.fill(zero);
    if (scale !== 0)
      for (let i = start; i < end; i++) levels[i - start] = levelOf((weights[i] as number) * perStep + zero);
    for (let i = 0; i < size; i += 2) {
      values[(block * size + i) / 2] = (levels[i] as number) | ((levels[i + 1] as number) << 4);
    }
    const [row, within] = [Math.floor(block / blocks), block % blocks];
    const at = row * Math.ceil(blocks / 2) + (within >> 1);
    zeros[at] = (zeros[at] as number) | (zero << (4 * (within & 1)));
  });
  return { ...INT4, values, scales, zeros };
}

/** The nearest of 0 to 15. */
const levelOf = (place: number): number => (place <= 0 ? 0 : place >= 15 ? 15 : (place + 0.5) | 0);

/** How a block is rounded, level = w * perStep + zero, and the scale by which levels become weights again. */
function bestLevels(weights: Float32Array, start: number, end: number, low: number, high: number) {
  let best = { perStep: 0, zero: 8, scale: 0 };
  let most = 0;
  for (const share of SHARES) {
    const step = ((high - low) * share) / 15;
    if (!(step > 0)) break;
    const zero = levelOf(7.5 - (low + high) / (2 * step));
    const perStep = 1 / step;
    let product = 0; // of q - zero with w
    let square = 0;
    for (let i = start; i < end; i++) {
      const w = weights[i] as number;
      const q = levelOf(w * perStep + zero) - zero;
      product += q * w;
      square += q * q;
    }
    // By the scale product / square of least squares the error is that of all zeros less this.
    const gain = square > 0 ? (product * product) / square : 0;
    if (gain > most) {
      most = gain;
      best = { perStep, zero, scale: Math.fround(product / square) };
    }
  }
  return best;
}

/** The weights that a matrix in few bits stands for, row-major. */
export function dequantize(matrix: QuantizedMatrix, rows: number, columns: number): Float32Array {
  const { bits, block: size, values, scales, minimums } = matrix;
  const weights = new Float32Array(rows * columns);
  const zeroOf = zerosOf(matrix, blocksOf(columns, size));
  eachBlock(weights.length, columns, size, (block, start, end) => {
    const [scale, minimum, zero] = [scales[block] as number, minimums?.[block] ?? 0, zeroOf(block)];
    for (let i = start; i < end; i++) {
      weights[i] = Math.fround(scale * (packedAt(values, bits, block * size + i - start) - zero)) - minimum;
    }
  });
  return weights;
}

/** The zero of each block. @param blocks of one row */
function zerosOf({ bits, zeros }: QuantizedMatrix, blocks: number): (block: number) => number {
  if (!zeros) return () => 2 ** (bits - 1);
  const perRow = (Math.ceil((blocks * bits) / 8) * 8) / bits; // the last byte of a row is filled up
  return (block) => packedAt(zeros, bits, Math.floor(block / blocks) * perRow + (block % blocks));
}

const packedAt = (bytes: Uint8Array, bits: 4 | 8, at: number): number =>
  bits === 8 ? (bytes[at] as number) : ((bytes[at >> 1] as number) >> (4 * (at & 1))) & 15;

/** @param visit gets each block, counted over all rows, and the weights that it has, [start, end) */
function eachBlock(
  count: number,
  columns: number,
  size: BlockSize,
  visit: (block: number, start: number, end: number) => void,
): void {
  let block = 0;
  for (let row = 0; row < count; row += columns) {
    for (let start = row; start < row + columns; start += size) {
      visit(block++, start, Math.min(start + size, row + columns));
    }
  }
}

/** Least and greatest of weights[start, end). */
function range(weights: Float32Array, start: number, end: number, name: string): [number, number] {
  let [low, high] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (let i = start; i < end; i++) {
    const weight = weights[i] as number;
    if (!(Math.abs(weight) < Number.POSITIVE_INFINITY)) {
      throw new FemoError(
        "E_WEIGHT",
        `${name}: expected finite weights, found ${weights[i]} at element ${i}. The checkpoint is damaged: download it again.`,
      );
    }
    if (weight < low) low = weight;
    if (weight > high) high = weight;
  }
  return [low, high];
}
