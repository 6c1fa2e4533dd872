import { FemoError } from "../errors.js";

/**
 * An 8-bit image, values 0 … 255, rows top to bottom, channels interleaved.  data: [height, width, channels]
 *
 * Three channels are RGB and four RGBA, told apart by the length; alpha is left out of every comparison. The browser's
 * `ImageData` is one of these.
 */
export interface BytePixels {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array | Uint8ClampedArray;
}

/** A float image as planes, any number of channels, as a decoder puts it out.  data: [channels, height, width] */
export interface FloatPlanes {
  readonly width: number;
  readonly height: number;
  readonly data: Float32Array;
  /** Values of black and white, such as [0, 1] or [−1, 1]. Values beyond are compared as they are. */
  readonly range: readonly [black: number, white: number];
}

/** Either kind of image; the two of a comparison are of the same kind. */
export type Pixels = BytePixels | FloatPlanes;

/** Two images ready to be compared, channel by channel. */
export interface PixelPair {
  readonly width: number;
  readonly height: number;
  /** White − black: the L of PSNR and SSIM. */
  readonly range: number;
  /** Planes [height, width] of the first and second image, shifted so that black is 0. */
  readonly channels: readonly (readonly [Float64Array, Float64Array])[];
}

/**
 * @throws FemoError E_IMAGE if the data of an image does not fit its size; E_OPTION if the images differ in size, kind,
 *   range or number of channels (RGB and RGBA agree)
 */
export function pairPixels(a: Pixels, b: Pixels): PixelPair {
  const [planesA, planesB] = [planes(a), planes(b)];
  if (a.width !== b.width || a.height !== b.height) {
    throw mismatch(`${a.width}x${a.height} and ${b.width}x${b.height}`, "of the same size");
  }
  const [rangeA, rangeB] = [rangeOf(a), rangeOf(b)];
  if ((rangeA === undefined) !== (rangeB === undefined)) throw mismatch("8-bit and float", "of the same kind");
  if (rangeA?.[0] !== rangeB?.[0] || rangeA?.[1] !== rangeB?.[1]) {
    throw mismatch(`range [${rangeA?.join(", ")}] and [${rangeB?.join(", ")}]`, "in the same range");
  }
  if (planesA.length !== planesB.length) {
    throw mismatch(`${planesA.length} and ${planesB.length} channels`, "with the same number of channels");
  }
  const channels = planesA.map((plane, c) => [plane, planesB[c] as Float64Array] as const);
  return { width: a.width, height: a.height, range: rangeA ? rangeA[1] - rangeA[0] : 255, channels };
}

const mismatch = (found: string, expected: string): FemoError =>
  new FemoError("E_OPTION", `comparison: expected two images ${expected}, found ${found}.`);

const rangeOf = (image: Pixels): FloatPlanes["range"] | undefined => ("range" in image ? image.range : undefined);

/** The channels of an image, alpha left out.  each [height, width] */
function planes(image: Pixels): Float64Array[] {
  const { width, height, data } = image;
  const area = width * height;
  const count = data.length / area;
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw new FemoError("E_IMAGE", `image: expected positive whole width and height, found ${width}x${height}.`);
  }
  if ("range" in image) {
    const [black, white] = image.range;
    if (!(white - black > 0) || !Number.isFinite(white - black)) {
      throw new FemoError(
        "E_IMAGE",
        `image: expected a range [black, white] with black < white, found [${image.range}].`,
      );
    }
    if (!Number.isInteger(count) || count < 1) throw badLength(image, "width·height per plane");
    return Array.from({ length: count }, (_, c) => plane(area, data, c * area, 1, black));
  }
  if (count !== 3 && count !== 4) throw badLength(image, `${3 * area} (RGB) or ${4 * area} (RGBA) bytes`);
  return [0, 1, 2].map((c) => plane(area, data, c, count, 0));
}

/** So many values, from one on, that lie so far apart, less that of black. */
function plane(count: number, data: Pixels["data"], first: number, stride: number, black: number): Float64Array {
  const found = new Float64Array(count);
  for (let i = 0; i < count; i++) found[i] = (data[first + i * stride] as number) - black;
  return found;
}

const badLength = ({ width, height, data }: Pixels, expected: string): FemoError =>
  new FemoError("E_IMAGE", `image of ${width}x${height}: expected ${expected}, found ${data.length} values.`);
