import { FemoError } from "../errors.js";
import { roundHalfEven } from "../samplers/index.js";
import type { RgbImage } from "./image.js";

/** A latent or an image as a model has it: one plane of floats for each channel. */
export interface Planes {
  /** [channels, height, width] */
  readonly dims: readonly [number, number, number];
  readonly data: Float32Array;
}

/** The part of at most `size` by `size` pixels whose corner lies at (top, left). */
export function cropPlanes({ dims, data }: Planes, top: number, left: number, size: number): Planes {
  const [channels, height, width] = dims;
  const [rows, columns] = [Math.min(size, height - top), Math.min(size, width - left)];
  const part = new Float32Array(channels * rows * columns);
  for (let row = 0; row < channels * rows; row++) {
    const start = (Math.floor(row / rows) * height + top + (row % rows)) * width + left;
    part.set(data.subarray(start, start + columns), row * columns);
  }
  return { dims: [channels, rows, columns], data: part };
}

/** Writes a part to where its corner lies at (top, left), as much of it as is inside. */
export function pastePlanes({ dims, data }: Planes, part: Planes, top: number, left: number): void {
  const [channels, height, width] = dims;
  const [, partHeight, partWidth] = part.dims;
  const [rows, columns] = [Math.min(partHeight, height - top), Math.min(partWidth, width - left)];
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < rows; row++) {
      const start = (channel * partHeight + row) * partWidth;
      data.set(part.data.subarray(start, start + columns), (channel * height + top + row) * width + left);
    }
  }
}

/** Colours as planes of [-1, 1]: 2 (level / 255) - 1 in float32. */
export function fromRgb({ width, height, data }: RgbImage): Planes {
  const pixels = width * height;
  const planes = new Float32Array(3 * pixels);
  for (let i = 0; i < data.length; i++) {
    planes[(i % 3) * pixels + Math.floor(i / 3)] = 2 * Math.fround((data[i] as number) / 255) - 1;
  }
  return { dims: [3, height, width], data: planes };
}

/**
 * Three planes of [-1, 1], or one of grey, as 8-bit colours, to the bit as diffusers' pipelines: round(255 clamp(x/2 +
 * 1/2)) in float32, halves to the even neighbour.
 * @throws FemoError E_IMAGE if there are neither three planes nor one
 */
export function toRgb({ dims: [channels, height, width], data }: Planes): RgbImage {
  if (channels !== 3 && channels !== 1) {
    throw new FemoError("E_IMAGE", `expected an image of 3 channels, or of 1, found ${channels}`);
  }
  const pixels = height * width;
  const bytes = new Uint8Array(3 * pixels);
  for (let i = 0; i < bytes.length; i++) {
    const x = data[((i % 3) % channels) * pixels + Math.floor(i / 3)] as number;
    bytes[i] = roundHalfEven(Math.fround(255 * Math.min(Math.max(Math.fround(x / 2 + 0.5), 0), 1)));
  }
  return { width, height, data: bytes };
}
