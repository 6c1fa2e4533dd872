import { FemoError } from "../errors.js";

/** Neighbours in a row that share a scale. ONNX Runtime multiplies blocks of 128 the fastest. */
export const BLOCK = 128;
/** The byte that stands for zero. */
const ZERO = 128;
/** The largest magnitude in steps of the scale, the same on both sides of zero. */
const STEPS = 127;

/** A matrix [rows, columns] in 8 bits: w = scale (byte - 128), with a scale for every block of a row. */
export interface QuantizedMatrix {
  /** [rows, blocks, 128], bytes of 1 to 255; the last block of a row is filled up with 128, which is zero. */
  readonly values: Uint8Array;
  /** [rows, blocks] */
  readonly scales: Float32Array;
}

/** Name under which a checkpoint keeps the scales of a quantised matrix, beside the values under its own. */
export const scalesOf = (name: string): string => `${name}.scales`;

export const blocksOf = (columns: number): number => Math.ceil(columns / BLOCK);

/**
 * Rounds each weight to the nearest of the 255 levels of its block, which reach from -max to max of its magnitudes. The
 * error is at most half a level, max / 254 (up to rounding of the scale to float32); a block whose weights are
 * whole multiples of a float32 scale, the largest of them 127, is exact.
 * @param weights row-major, rows x columns
 * @param name of the tensor, for messages
 * @throws FemoError E_WEIGHT if a weight is infinite or not a number
 */
export function quantizeMatrix(weights: Float32Array, columns: number, name: string): QuantizedMatrix {
  const [rows, blocks] = [weights.length / columns, blocksOf(columns)];
  const values = new Uint8Array(rows * blocks * BLOCK).fill(ZERO);
  const scales = new Float32Array(rows * blocks);
  for (let block = 0; block < scales.length; block++) {
    const [row, within] = [Math.floor(block / blocks), block % blocks];
    const start = row * columns + within * BLOCK;
    const end = Math.min(start + BLOCK, (row + 1) * columns);
    const scale = Math.fround(largest(weights, start, end, name) / STEPS);
    scales[block] = scale;
    if (scale === 0) continue;
    const to = block * BLOCK - start;
    for (let i = start; i < end; i++) values[to + i] = Math.floor((weights[i] as number) / scale + ZERO + 0.5);
  }
  return { values, scales };
}

/** The largest magnitude of weights[start, end). */
function largest(weights: Float32Array, start: number, end: number, name: string): number {
  let max = 0;
  for (let i = start; i < end; i++) {
    const size = Math.abs(weights[i] as number);
    if (!(size < Number.POSITIVE_INFINITY)) {
      throw new FemoError(
        "E_WEIGHT",
        `${name}: expected finite weights, found ${weights[i]} at element ${i}. The checkpoint is damaged: download it again.`,
      );
    }
    if (size > max) max = size;
  }
  return max;
}
