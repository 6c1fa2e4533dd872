import { FemoError } from "../../errors.js";
import { fromRgb, type RgbImage } from "../../images/index.js";
import type { Beginning } from "../family.js";
import type { SubjectOptions } from "../subject-options.js";
import { checkSide } from "./prompt-requests.js";

interface Size {
  readonly height: number;
  readonly width: number;
}

/** Pictures to begin with. */
export interface Beginnings {
  /** Of all of them. */
  readonly size: Size;
  /** @param i index of the prompt */
  of(i: number): Beginning;
}

/**
 * The pictures that a request begins with, one for all prompts or one for each, and what of them is drawn anew.
 * @param stride pixels along a side of a latent pixel
 * @throws FemoError E_OPTION if they do not fit each other, the prompts or the model
 */
export function beginnings(request: SubjectOptions, stride: number): Beginnings | undefined {
  const { image, maskImage, strength, prompt } = request;
  if (image === undefined) {
    for (const [name, value] of Object.entries({ maskImage, strength })) {
      if (value !== undefined) throw new FemoError("E_OPTION", `${name}: expected an image beside it, found none`);
    }
    return undefined;
  }
  const prompts = [prompt].flat().length;
  const images = listOf("image", image, prompts);
  const masks = maskImage === undefined ? [] : listOf("maskImage", maskImage, prompts);
  const [{ height, width }] = images as [RgbImage];
  checkSide("image: height", height, stride);
  checkSide("image: width", width, stride);
  for (const [name, all] of Object.entries({ image: images, maskImage: masks })) {
    const other = all.find((one) => one.height !== height || one.width !== width);
    if (!other) continue;
    throw new FemoError(
      "E_OPTION",
      `${name}: expected ${width}x${height} pixels, as the first image has, found ${other.width}x${other.height}`,
    );
  }
  const made = images.map(fromRgb);
  const repainted = masks.map((mask) => paintedOver(mask));
  return {
    size: { height, width },
    of(i) {
      const at = <T>(list: readonly T[]): T => list[list.length > 1 ? i : 0] as T;
      const picture = at(made);
      if (repainted.length === 0) return { image: picture };
      const over = at(repainted);
      const pixels = height * width;
      return {
        image: picture,
        mask: everyNth(over, { height, width }, stride),
        masked: { ...picture, data: picture.data.map((x, k) => (over[k % pixels] ? 0 : x)) },
      };
    },
  };
}

/** @throws FemoError E_OPTION if the request wants another size than its picture has */
export function checkBeginning(size: Size, wanted: Size): void {
  for (const side of ["height", "width"] as const) {
    if (wanted[side] === size[side]) continue;
    throw new FemoError(
      "E_OPTION",
      `${side}: expected ${size[side]}, as the image has, found ${wanted[side]}: leave it out, or give a resized image`,
    );
  }
}

/** @throws FemoError E_OPTION if there are neither one nor as many as prompts, or an image is not as long as it says */
function listOf(name: string, images: RgbImage | readonly RgbImage[], prompts: number): readonly RgbImage[] {
  const all: readonly RgbImage[] = "data" in images ? [images] : images;
  if (all.length !== 1 && all.length !== prompts) {
    throw new FemoError(
      "E_OPTION",
      `${name}: expected one, or one for each of ${prompts} prompts, found ${all.length}`,
    );
  }
  for (const { width, height, data } of all) {
    if (data.length === 3 * width * height) continue;
    throw new FemoError(
      "E_OPTION",
      `${name}: expected 3 bytes for each of ${width}x${height} pixels, ${3 * width * height}, found ${data.length}`,
    );
  }
  return all;
}

/** Which pixels are drawn anew: those at least half white, as PIL makes grey of colours, 1; the others 0. */
const paintedOver = ({ data, width, height }: RgbImage): Uint8Array =>
  Uint8Array.from({ length: width * height }, (_, i) => {
    const [r, g, b] = [data[3 * i], data[3 * i + 1], data[3 * i + 2]] as [number, number, number];
    const grey = (19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16;
    return grey >= 127.5 ? 1 : 0;
  });

/** The first pixel of each latent pixel's square. */
function everyNth(pixels: Uint8Array, { height, width }: Size, stride: number): Float32Array {
  const columns = width / stride;
  return Float32Array.from({ length: (height / stride) * columns }, (_, i) => {
    return pixels[Math.floor(i / columns) * stride * width + (i % columns) * stride] as number;
  });
}
