import { FemoError } from "../errors.js";
import { float16Value } from "./float16.js";

/**
 * Types of GGUF whose elements are quantised in blocks along a row. Of every run of `run` elements in a block
 *
 *     w = scale (q - zero) - minimum
 *
 * with whole q of at most `bits` bits; types without `minimums` have none. Formulas of ggml's reference
 * (`dequantize_row_*`), which computes in float32.
 */
export const BLOCK_TYPES = {
  q4_0: { id: 2, elements: 32, bytes: 18, run: 32, bits: 4, zero: 8, minimums: false },
  q4_1: { id: 3, elements: 32, bytes: 20, run: 32, bits: 4, zero: 0, minimums: true },
  q5_0: { id: 6, elements: 32, bytes: 22, run: 32, bits: 5, zero: 16, minimums: false },
  q5_1: { id: 7, elements: 32, bytes: 24, run: 32, bits: 5, zero: 0, minimums: true },
  q8_0: { id: 8, elements: 32, bytes: 34, run: 32, bits: 8, zero: 128, minimums: false },
  q4_k: { id: 12, elements: 256, bytes: 144, run: 32, bits: 4, zero: 0, minimums: true },
  q5_k: { id: 13, elements: 256, bytes: 176, run: 32, bits: 5, zero: 0, minimums: true },
  q6_k: { id: 14, elements: 256, bytes: 210, run: 16, bits: 6, zero: 32, minimums: false },
} as const satisfies Readonly<Record<string, BlockLayout>>;

export type BlockType = keyof typeof BLOCK_TYPES;

interface BlockLayout {
  /** Number of the type in a GGUF file. */
  readonly id: number;
  /** Elements of a block. */
  readonly elements: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Elements that share a scale. */
  readonly run: number;
  readonly bits: number;
  readonly zero: number;
  readonly minimums: boolean;
}

/** A matrix [rows, columns] in blocks as ONNX Runtime's MatMulNBits takes them: w = scale (q - 2^(bits - 1)) - minimum. */
export interface PackedBlocks {
  readonly bits: 4 | 8;
  /** Neighbours in a row that share a scale. */
  readonly block: 16 | 32;
  /** [rows, blocks, block bits / 8]; of 4 bits a byte holds an even element in its lower and the next in its upper half. */
  readonly values: Uint8Array;
  /** [rows, blocks] */
  readonly scales: Float32Array;
  /** [rows, blocks]; absent if all are zero. */
  readonly minimums?: Float32Array;
}

/** Of one block: what its bytes say, refilled for each. */
interface Unpacked {
  /** [elements] */
  readonly q: Uint8Array;
  /** [elements / run] */
  readonly scales: Float32Array;
  /** [elements / run]; zeros if the type has none. */
  readonly minimums: Float32Array;
}

/** Reads the block that begins at `at`. */
type Unpack = (bytes: Uint8Array, at: number, into: Unpacked) => void;

const UNPACK: Readonly<Record<BlockType, Unpack>> = {
  q4_0: (bytes, at, { q, scales }) => {
    scales[0] = half(bytes, at);
    nibbles(bytes, at + 2, 16, q, 0);
  },
  q4_1: (bytes, at, { q, scales, minimums }) => {
    scales[0] = half(bytes, at);
    minimums[0] = -half(bytes, at + 2);
    nibbles(bytes, at + 4, 16, q, 0);
  },
  q5_0: (bytes, at, { q, scales }) => {
    scales[0] = half(bytes, at);
    nibbles(bytes, at + 6, 16, q, 0);
    fifthBits(bytes, at + 2, q);
  },
  q5_1: (bytes, at, { q, scales, minimums }) => {
    scales[0] = half(bytes, at);
    minimums[0] = -half(bytes, at + 2);
    nibbles(bytes, at + 8, 16, q, 0);
    fifthBits(bytes, at + 4, q);
  },
  q8_0: (bytes, at, { q, scales }) => {
    scales[0] = half(bytes, at);
    for (let i = 0; i < 32; i++) q[i] = (bytes[at + 2 + i] as number) ^ 0x80; // int8 + 128
  },
  q4_k: (bytes, at, into) => {
    kScales(bytes, at, into);
    for (let pair = 0; pair < 4; pair++) nibbles(bytes, at + 16 + 32 * pair, 32, into.q, 64 * pair);
  },
  q5_k: (bytes, at, into) => {
    const { q } = into;
    kScales(bytes, at, into);
    for (let pair = 0; pair < 4; pair++) nibbles(bytes, at + 48 + 32 * pair, 32, q, 64 * pair);
    for (let i = 0; i < 256; i++) {
      const fifth = ((bytes[at + 16 + (i & 31)] as number) >> (i >> 5)) & 1;
      q[i] = (q[i] as number) | (fifth << 4);
    }
  },
  q6_k: (bytes, at, { q, scales }) => {
    const d = half(bytes, at + 208);
    for (let i = 0; i < 16; i++) scales[i] = d * (((bytes[at + 192 + i] as number) << 24) >> 24);
    for (let side = 0; side < 2; side++) {
      // 128 elements: four lower bits of two in a byte, two upper bits of four in a byte.
      for (let pair = 0; pair < 2; pair++) {
        for (let i = 0; i < 32; i++) {
          const low = bytes[at + 64 * side + 32 * pair + i] as number;
          const high = bytes[at + 128 + 32 * side + i] as number;
          const to = 128 * side + 32 * pair + i;
          q[to] = (low & 15) | (((high >> (2 * pair)) & 3) << 4);
          q[to + 64] = (low >> 4) | (((high >> (2 * pair + 4)) & 3) << 4);
        }
      }
    }
  },
};

const half = (bytes: Uint8Array, at: number): number =>
  float16Value((bytes[at] as number) | ((bytes[at + 1] as number) << 8));

/** The lower halves of `count` bytes, then their upper halves. */
function nibbles(bytes: Uint8Array, from: number, count: number, q: Uint8Array, to: number): void {
  for (let i = 0; i < count; i++) {
    const byte = bytes[from + i] as number;
    q[to + i] = byte & 15;
    q[to + count + i] = byte >> 4;
  }
}

/** Bit i of four bytes is the fifth of element i. */
function fifthBits(bytes: Uint8Array, from: number, q: Uint8Array): void {
  for (let i = 0; i < 32; i++) {
    const fifth = ((bytes[from + (i >> 3)] as number) >> (i & 7)) & 1;
    q[i] = (q[i] as number) | (fifth << 4);
  }
}

/** Of Q4_K and Q5_K: eight scales and minimums of six bits in twelve bytes, times a float16 each. */
function kScales(bytes: Uint8Array, at: number, { scales, minimums }: Unpacked): void {
  const [d, dmin] = [half(bytes, at), half(bytes, at + 2)];
  const s = (i: number): number => bytes[at + 4 + i] as number;
  for (let j = 0; j < 4; j++) {
    scales[j] = d * (s(j) & 63);
    minimums[j] = dmin * (s(j + 4) & 63);
    scales[j + 4] = d * ((s(j + 8) & 15) | ((s(j) >> 6) << 4));
    minimums[j + 4] = dmin * ((s(j + 8) >> 4) | ((s(j + 4) >> 6) << 4));
  }
}

/** What is in each block of bytes, one after the other; `each` gets the same object every time. */
function unpackEach(type: BlockType, bytes: Uint8Array, each: (unpacked: Unpacked, block: number) => void): void {
  const { elements, bytes: size, run } = BLOCK_TYPES[type];
  const count = bytes.length / size;
  if (!Number.isInteger(count)) {
    throw new FemoError("E_WEIGHT", `${type}: expected blocks of ${size} bytes, found ${bytes.length} bytes.`);
  }
  const runs = elements / run;
  const into = { q: new Uint8Array(elements), scales: new Float32Array(runs), minimums: new Float32Array(runs) };
  const unpack = UNPACK[type];
  for (let block = 0; block < count; block++) {
    unpack(bytes, block * size, into);
    each(into, block);
  }
}

/**
 * Blocks as float32, to the bit what ggml's reference makes of them.
 * @param bytes whole blocks
 * @throws FemoError E_WEIGHT if they are not whole
 */
export function dequantizeBlocks(type: BlockType, bytes: Uint8Array): Float32Array {
  const { elements, bytes: size, run, zero } = BLOCK_TYPES[type];
  const values = new Float32Array(Math.floor(bytes.length / size) * elements);
  unpackEach(type, bytes, ({ q, scales, minimums }, block) => {
    const start = block * elements;
    for (let from = 0; from < elements; from += run) {
      const [scale, minimum] = [scales[from / run] as number, minimums[from / run] as number];
      for (let i = from; i < from + run; i++) {
        values[start + i] = Math.fround(scale * ((q[i] as number) - zero)) - minimum;
      }
    }
  });
  return values;
}

/**
 * A matrix in blocks in the form of MatMulNBits, with the scales and whole numbers that the file has: nothing is quantised
 * again. Q8_0, Q4_0, Q5_0 and Q6_K are exact without minimums, Q5_1 and Q5_K with them, in 8 bits. Q4_1 and Q4_K stay in 4
 * bits, where zero is 8: eight scales go into the minimum, which rounds it once to float32, by at most 2⁻²⁴ of
 * 8 |scale| + |minimum|, a millionth of a step of the scale where it is not larger.
 * @param bytes row-major, whole blocks
 * @throws FemoError E_WEIGHT if the bytes are not those of the matrix
 */
export function packedBlocks(type: BlockType, bytes: Uint8Array, rows: number, columns: number): PackedBlocks {
  const { elements, bytes: size, run, zero, minimums: hasMinimums, bits: stored } = BLOCK_TYPES[type];
  if (columns % elements !== 0 || bytes.length !== ((rows * columns) / elements) * size) {
    throw new FemoError(
      "E_WEIGHT",
      `${type}: expected ${size} bytes for every ${elements} elements of [${rows}, ${columns}], found ${bytes.length} bytes.`,
    );
  }
  const bits = stored === 4 ? 4 : 8;
  const shift = 2 ** (bits - 1) - zero; // from the type's zero to the operator's
  const folded = bits === 4 ? shift : 0;
  const runs = elements / run;
  const values = new Uint8Array((rows * columns * bits) / 8);
  const scales = new Float32Array((rows * columns) / run);
  const minimums = hasMinimums ? new Float32Array(scales.length) : undefined;
  unpackEach(type, bytes, (unpacked, block) => {
    const { q } = unpacked;
    const at = (block * elements * bits) / 8;
    if (bits === 8) for (let i = 0; i < elements; i++) values[at + i] = (q[i] as number) + shift;
    else for (let i = 0; 2 * i < elements; i++) values[at + i] = (q[2 * i] as number) | ((q[2 * i + 1] as number) << 4);
    scales.set(unpacked.scales, block * runs);
    if (!minimums) return;
    for (let r = 0; r < runs; r++) {
      minimums[block * runs + r] = (unpacked.minimums[r] as number) - folded * (unpacked.scales[r] as number);
    }
  });
  return { bits, block: run, values, scales, ...(minimums && { minimums }) };
}
