import { FemoError } from "../errors.js";
import { float16ToFloat32Bits } from "./float16.js";
import { BLOCK_TYPES, type BlockType, dequantizeBlocks } from "./gguf-blocks.js";

/** Element types of the safetensors format: the name in the file, ours, and bits per element. */
const TABLE = [
  ["BOOL", "bool", 8],
  ["F4", "float4_e2m1", 4],
  ["F6_E2M3", "float6_e2m3", 6],
  ["F6_E3M2", "float6_e3m2", 6],
  ["U8", "uint8", 8],
  ["I8", "int8", 8],
  ["F8_E5M2", "float8_e5m2", 8],
  ["F8_E4M3", "float8_e4m3fn", 8],
  ["F8_E8M0", "float8_e8m0", 8],
  ["F8_E4M3FNUZ", "float8_e4m3fnuz", 8],
  ["F8_E5M2FNUZ", "float8_e5m2fnuz", 8],
  ["I16", "int16", 16],
  ["U16", "uint16", 16],
  ["F16", "float16", 16],
  ["BF16", "bfloat16", 16],
  ["I32", "int32", 32],
  ["U32", "uint32", 32],
  ["F32", "float32", 32],
  ["C64", "complex64", 64],
  ["F64", "float64", 64],
  ["I64", "int64", 64],
  ["U64", "uint64", 64],
] as const;

/**
 * Element type of a stored tensor. The names are PyTorch's and ONNX's, so those that a graph knows are spelled alike;
 * those of GGUF's blocks are GGUF's.
 */
export type TensorDtype = (typeof TABLE)[number][1] | BlockType;

/** Bits of one element; of blocks their bits for each element, such as 8.5, scales included: all of them exact. */
export const DTYPE_BITS = Object.fromEntries([
  ...TABLE.map(([, dtype, bits]) => [dtype, bits]),
  ...Object.entries(BLOCK_TYPES).map(([dtype, { elements, bytes }]) => [dtype, (8 * bytes) / elements]),
]) as Readonly<Record<TensorDtype, number>>;

/** True for GGUF's blocks of quantised elements, which run along the rows of a matrix. */
export const isBlockType = (dtype: TensorDtype): dtype is BlockType => Object.hasOwn(BLOCK_TYPES, dtype);

/** Element types by their name in a safetensors header. */
export const SAFETENSORS_DTYPES: ReadonlyMap<string, TensorDtype> = new Map(
  TABLE.map(([name, dtype]) => [name, dtype]),
);

/**
 * Stored elements as float32. float16, bfloat16, float8_e4m3fn and float8_e5m2 are exact, subnormals, infinities and NaN
 * included; float64 is rounded to the nearest, and blocks are what ggml makes of them.
 * @param bytes little-endian, as stored; whole blocks
 * @param name of the tensor, for messages
 * @throws FemoError E_WEIGHT if the type is neither blocks nor one of these
 */
export function toFloat32(bytes: Uint8Array, dtype: TensorDtype, name: string): Float32Array {
  if (isBlockType(dtype)) return dequantizeBlocks(dtype, bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = bytes.byteLength / (DTYPE_BITS[dtype] / 8);
  const values = new Float32Array(count);
  const bits = new Uint32Array(values.buffer); // keeps the bits of a NaN, which a float assignment need not
  switch (dtype) {
    case "float32":
      for (let i = 0; i < count; i++) bits[i] = view.getUint32(4 * i, true);
      return values;
    case "bfloat16":
      for (let i = 0; i < count; i++) bits[i] = view.getUint16(2 * i, true) << 16;
      return values;
    case "float16":
      for (let i = 0; i < count; i++) bits[i] = float16ToFloat32Bits(view.getUint16(2 * i, true));
      return values;
    case "float64":
      for (let i = 0; i < count; i++) values[i] = view.getFloat64(8 * i, true);
      return values;
    // The upper byte of a float16 is a float8_e5m2.
    case "float8_e5m2":
      for (let i = 0; i < count; i++) bits[i] = float16ToFloat32Bits((bytes[i] as number) << 8);
      return values;
    case "float8_e4m3fn":
      for (let i = 0; i < count; i++) bits[i] = float8ToFloat32Bits(bytes[i] as number);
      return values;
    default:
      throw new FemoError(
        "E_WEIGHT",
        `${name}: expected float8_e4m3fn, float8_e5m2, float16, bfloat16, float32 or float64, found ${dtype}. ` +
          "Use a checkpoint that is not quantized.",
      );
  }
}

/** float8_e4m3fn: sign 1, exponent 4 (bias 7), mantissa 3; no infinities, all ones are NaN. As a float16 it is exact. */
function float8ToFloat32Bits(byte: number): number {
  const sign = (byte & 0x80) << 24;
  const magnitude = byte & 0x7f;
  if (magnitude === 0x7f) return sign | 0x7fc00000;
  // Exponent and mantissa moved to a float16's places are 2⁻⁸ times the value, whose bias is 8 less; 448 still fits.
  const scaled = float16ToFloat32Bits(magnitude << 7);
  return magnitude === 0 ? sign : sign | (scaled + (8 << 23));
}
