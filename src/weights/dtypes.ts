import { FemoError } from "../errors.js";

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

/** Element type of a stored tensor. The names are PyTorch's and ONNX's, so those that a graph knows are spelled alike. */
export type TensorDtype = (typeof TABLE)[number][1];

/** Bits of one element. */
export const DTYPE_BITS = Object.fromEntries(TABLE.map(([, dtype, bits]) => [dtype, bits])) as Readonly<
  Record<TensorDtype, number>
>;

/** Element types by their name in a safetensors header. */
export const SAFETENSORS_DTYPES: ReadonlyMap<string, TensorDtype> = new Map(
  TABLE.map(([name, dtype]) => [name, dtype]),
);

/**
 * Stored elements as float32. float16 and bfloat16 are exact, subnormals, infinities and NaN included; float64 is
 * rounded to the nearest.
 * @param bytes little-endian, as stored
 * @param name of the tensor, for messages
 * @throws FemoError E_WEIGHT if the type is not a floating-point type of 16, 32 or 64 bits
 */
export function toFloat32(bytes: Uint8Array, dtype: TensorDtype, name: string): Float32Array {
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
    default:
      throw new FemoError(
        "E_WEIGHT",
        `${name}: expected float16, bfloat16, float32 or float64, found ${dtype}. Use a checkpoint that is not quantized.`,
      );
  }
}

/** float16: sign 1, exponent 5 (bias 15), mantissa 10. float32: 1, 8 (bias 127), 23. */
function float16ToFloat32Bits(half: number): number {
  const sign = (half & 0x8000) << 16;
  const exponent = (half >> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0x1f) return sign | 0x7f800000 | (mantissa << 13); // infinity, NaN
  if (exponent !== 0) return sign | ((exponent + 127 - 15) << 23) | (mantissa << 13);
  if (mantissa === 0) return sign;
  // Subnormal: mantissa · 2⁻²⁴, normal in float32. Its leading one, at bit 31 - zeros, becomes implicit.
  const zeros = Math.clz32(mantissa);
  return sign | ((31 - zeros - 24 + 127) << 23) | ((mantissa << (zeros - 8)) & 0x7fffff);
}
