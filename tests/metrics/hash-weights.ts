import type { RgbImage } from "../../src/images/index.js";

/** Murmur3's finalizer. */
export function mix(h: number): number {
  let x = h >>> 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** FNV-1a in 32 bits of a name's bytes. */
export function fnv(name: string): number {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) h = Math.imul(h ^ byte, 0x01000193);
  return h >>> 0;
}

/** Numbers in [-1, 1) that depend on a name and on where they stand, the same in any language. */
export function hashed(name: string, length: number): Float64Array {
  const key = fnv(name);
  return Float64Array.from({ length }, (_, i) => (2 * (mix(i + key) >>> 8)) / 2 ** 24 - 1);
}

/** offset + scale S(name) in float32. */
export function hashTensor(name: string, length: number, scale: number, offset = 0): Float32Array {
  const key = fnv(name);
  const values = new Float32Array(length);
  for (let i = 0; i < length; i++) values[i] = offset + scale * ((2 * (mix(i + key) >>> 8)) / 2 ** 24 - 1);
  return values;
}

/** A picture of gradients and noise that any language can make. */
export function testImage(width: number, height: number, k: number): RgbImage {
  const data = new Uint8Array(3 * width * height);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++, i++) {
        data[i] = ((x * (2 + k) + y * (3 + c) + 40 * c + Math.floor((x * y) / 32)) % 224) + (mix(i + k) & 31);
      }
    }
  }
  return { width, height, data };
}
