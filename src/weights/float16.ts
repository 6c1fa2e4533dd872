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
