/**
 * A float16 as float32's bits: sign 1, exponent 5 (bias 15), mantissa 10, against 1, 8 (bias 127), 23. Exact, subnormals,
 * infinities and NaN included.
 */
export function float16ToFloat32Bits(half: number): number {
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

const bits = new Uint32Array(1);
const value = new Float32Array(bits.buffer);

/** A float16 as a number. */
export function float16Value(half: number): number {
  bits[0] = float16ToFloat32Bits(half);
  return value[0] as number;
}

/** The greatest float16. */
export const FLOAT16_MAX = 65504;

/** A number as the nearest float16, of two the even one; infinity beyond the greatest. */
export function float16Bits(x: number): number {
  value[0] = x;
  const [word] = bits as unknown as [number];
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00; // from 65520 on
  if (magnitude >= 0x38800000) return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  // Subnormal: in units of 2⁻²⁴.
  const units = Math.abs(value[0] as number) * 2 ** 24;
  const below = Math.floor(units);
  const up = units - below > 0.5 || (units - below === 0.5 && below % 2 === 1);
  return sign | (below + Number(up));
}
