import { FemoError } from "../errors.js";
import { checkImage, type RgbImage } from "./image.js";
import type { Planes } from "./planes.js";

/**
 * Two taps, no antialias, in the two ways that networks of Inception were given their pixels:
 * - `half`: pixels have their centres at halves (PyTorch's `interpolate`, align_corners false, no antialias);
 * - `tf1`: TensorFlow 1's `resize_bilinear`, whose output i lies at i in/out.
 */
export type BilinearFilter = "half" | "tf1";

/** What one output sample is made of along an axis: weights of the samples from `first` on. */
interface Taps {
  readonly first: number;
  readonly weights: Float64Array;
}

/**
 * Resized with two taps in each direction, along rows first. Coordinates are float32's, as where the networks come from:
 * in float64 levels differ by up to 0.01.
 * @returns planes [3, height, width] of levels 0 .. 255, not rounded
 * @throws FemoError E_IMAGE if the image is malformed; E_OPTION if a size is not positive and whole
 */
export function resizeBilinear(image: RgbImage, width: number, height: number, filter: BilinearFilter): Planes {
  checkSizes(image, width, height);
  return resizeFloat(image, width, height, (from, to) => bilinearTaps(from, to, filter));
}

/**
 * Pillow's bicubic resize with antialias, in 8 bits as `Image.resize` of an RGB image: weights are whole numbers, and
 * levels are rounded between the two directions. Equal to the bit.
 * @throws FemoError as `resizeBilinear`
 */
export function resizeBicubic(image: RgbImage, width: number, height: number): RgbImage {
  checkSizes(image, width, height);
  const whole = (from: number, to: number): Taps[] =>
    bicubicTaps(from, to).map(({ first, weights }) => ({ first, weights: weights.map(fixedPoint) }));
  const across =
    width === image.width ? image.data : passAcross(image.data, image.height, whole(image.width, width), intoBytes);
  const data = height === image.height ? across : passDown(across, width, whole(image.height, height), intoBytes);
  return { width, height, data: data === image.data ? image.data.slice() : (data as Uint8Array) };
}

/**
 * The same in float32, as Pillow resizes each channel alone in its mode "F". Levels may leave 0 .. 255 a little.
 * @returns planes [3, height, width]
 * @throws FemoError as `resizeBilinear`
 */
export function resizeBicubicFloat(image: RgbImage, width: number, height: number): Planes {
  checkSizes(image, width, height);
  return resizeFloat(image, width, height, bicubicTaps);
}

/** One plane resized with two taps in each direction, as `half` does. */
export function resizePlane(
  { width, height, data }: { readonly width: number; readonly height: number; readonly data: Float32Array },
  toWidth: number,
  toHeight: number,
): Float32Array {
  const [across, down] = [bilinearTaps(width, toWidth, "half"), bilinearTaps(height, toHeight, "half")];
  const rows = new Float32Array(height * toWidth);
  const weighted = (values: Float32Array, start: number, step: number, weights: Float64Array): number =>
    weights.reduce((sum, w, k) => sum + w * (values[start + k * step] as number), 0);
  for (let y = 0; y < height; y++) {
    for (const [x, tap] of across.entries()) {
      rows[y * toWidth + x] = weighted(data, y * width + tap.first, 1, tap.weights);
    }
  }
  const out = new Float32Array(toWidth * toHeight);
  for (const [y, tap] of down.entries()) {
    for (let x = 0; x < toWidth; x++) {
      out[y * toWidth + x] = weighted(rows, tap.first * toWidth + x, toWidth, tap.weights);
    }
  }
  return out;
}

/** The part in the middle. @param offset of the corner, of how much is left over along an axis */
export function cropCentre(
  image: RgbImage,
  width: number,
  height: number,
  offset: (leftOver: number) => number,
): RgbImage {
  const [left, top] = [offset(image.width - width), offset(image.height - height)];
  const data = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++) {
    const start = 3 * ((top + y) * image.width + left);
    data.set(image.data.subarray(start, start + 3 * width), 3 * y * width);
  }
  return { width, height, data };
}

function checkSizes(image: RgbImage, width: number, height: number): void {
  checkImage(image);
  const right = (size: number): boolean => Number.isSafeInteger(size) && size >= 1 && size <= 2 ** 20;
  if (right(width) && right(height)) return;
  throw new FemoError("E_OPTION", `resize: expected positive whole width and height, found ${width}x${height}.`);
}

function resizeFloat(
  image: RgbImage,
  width: number,
  height: number,
  tapsOf: (from: number, to: number) => readonly Taps[],
): Planes {
  const across =
    width === image.width
      ? image.data
      : passAcross(image.data, image.height, tapsOf(image.width, width), (length) => new Float32Array(length));
  const levels =
    height === image.height
      ? across
      : passDown(across, width, tapsOf(image.height, height), (length) => new Float32Array(length));
  const area = width * height;
  const data = new Float32Array(3 * area);
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) data[c * area + i] = levels[3 * i + c] as number;
  }
  return { dims: [3, height, width], data };
}

function bilinearTaps(from: number, to: number, filter: BilinearFilter): Taps[] {
  const scale = Math.fround(from / to);
  return Array.from({ length: to }, (_, i) => {
    const at =
      filter === "tf1"
        ? Math.fround(scale * i)
        : Math.max(0, Math.fround(Math.fround(scale * Math.fround(i + 0.5)) - 0.5));
    const first = Math.min(Math.floor(at), from - 1);
    const share = Math.fround(at - first);
    return { first, weights: first + 1 < from ? Float64Array.of(1 - share, share) : Float64Array.of(1) };
  });
}

function bicubicTaps(from: number, to: number): Taps[] {
  const scale = from / to;
  const stretch = Math.max(scale, 1); // antialias where the image gets smaller
  const support = 2 * stretch;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = Float64Array.from({ length: end - first }, (_, k) => keys((first + k - centre + 0.5) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => w / sum) };
  });
}

/** Keys' cubic with a = -0.5. */
function keys(at: number): number {
  const x = Math.abs(at);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

const PRECISION = 2 ** 22; // of Pillow's whole weights

const fixedPoint = (weight: number): number => Math.trunc(weight * PRECISION + (weight < 0 ? -0.5 : 0.5));

/** Sums of whole weights come in as levels: rounded, and clamped to what a byte holds. */
interface ByteSums {
  set(i: number, sum: number): void;
  readonly bytes: Uint8Array;
}

type Levels = Uint8Array | Float32Array;
type Make = (length: number) => Levels | ByteSums;

const intoBytes = (length: number): ByteSums => {
  const bytes = new Uint8Array(length);
  return {
    bytes,
    set(i, sum) {
      bytes[i] = Math.min(Math.max(Math.floor((sum + PRECISION / 2) / PRECISION), 0), 255);
    },
  };
};

/** [rows, W, 3] to [rows, taps, 3] */
function passAcross(data: Levels, rows: number, taps: readonly Taps[], make: Make): Levels {
  const width = data.length / (3 * rows);
  return pass(make, rows * taps.length, (put) => {
    for (let y = 0; y < rows; y++) {
      for (const [x, tap] of taps.entries()) {
        sumTaps(data, 3 * (y * width + tap.first), 3, tap.weights, 3 * (y * taps.length + x), put);
      }
    }
  });
}

/** [H, width, 3] to [taps, width, 3] */
function passDown(data: Levels, width: number, taps: readonly Taps[], make: Make): Levels {
  return pass(make, width * taps.length, (put) => {
    for (const [y, { first, weights }] of taps.entries()) {
      for (let x = 0; x < width; x++) {
        sumTaps(data, 3 * (first * width + x), 3 * width, weights, 3 * (y * width + x), put);
      }
    }
  });
}

type Put = (i: number, sum: number) => void;

function pass(make: Make, pixels: number, fill: (put: Put) => void): Levels {
  const out = make(3 * pixels);
  if ("bytes" in out) {
    fill((i, sum) => out.set(i, sum));
    return out.bytes;
  }
  fill((i, sum) => {
    out[i] = sum;
  });
  return out;
}

/** One pixel: three weighted sums over samples that lie `step` apart. */
function sumTaps(data: Levels, from: number, step: number, weights: Float64Array, to: number, put: Put): void {
  let [r, g, b] = [0, 0, 0];
  for (let k = 0, at = from; k < weights.length; k++, at += step) {
    const w = weights[k] as number;
    r += w * (data[at] as number);
    g += w * (data[at + 1] as number);
    b += w * (data[at + 2] as number);
  }
  put(to, r);
  put(to + 1, g);
  put(to + 2, b);
}
