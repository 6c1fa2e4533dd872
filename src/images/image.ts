import { FemoError } from "../errors.js";

/** An 8-bit RGB image, rows top to bottom.  data: [height, width, 3], 0 … 255 */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/**
 * Throws unless width and height are positive integers and the data is as long as they say.
 *
 * @throws FemoError E_IMAGE
 */
export function checkImage({ width, height, data }: RgbImage): void {
  if (!Number.isSafeInteger(width) || !Number.isSafeInteger(height) || width < 1 || height < 1) {
    throw new FemoError("E_IMAGE", `image: expected positive whole width and height, found ${width}x${height}.`);
  }
  if (data.length !== 3 * width * height) {
    throw new FemoError(
      "E_IMAGE",
      `image of ${width}x${height}: expected ${3 * width * height} bytes (3 per pixel), found ${data.length}.`,
    );
  }
}

/**
 * Images of one size side by side, row by row, on white: image i is in column i mod `columns`. The grid has `columns`
 * columns even if there are fewer images.
 *
 * @param gap white pixels between neighbours, none around the grid
 * @throws FemoError E_OPTION if there is no image, sizes differ, `columns` < 1 or `gap` < 0; E_IMAGE if an image is
 *   malformed
 */
export function gridImage(images: readonly RgbImage[], columns: number, gap = 0): RgbImage {
  const [first] = images;
  if (first === undefined) throw new FemoError("E_OPTION", "gridImage: expected at least one image, found none.");
  if (!Number.isSafeInteger(columns) || columns < 1) {
    throw new FemoError("E_OPTION", `gridImage: expected columns to be a positive integer, found ${columns}.`);
  }
  if (!Number.isSafeInteger(gap) || gap < 0) {
    throw new FemoError("E_OPTION", `gridImage: expected gap to be a non-negative integer, found ${gap}.`);
  }
  images.forEach((image, i) => {
    checkImage(image);
    if (image.width === first.width && image.height === first.height) return;
    throw new FemoError(
      "E_OPTION",
      `gridImage: expected images of one size, ${first.width}x${first.height}, found ${image.width}x${image.height} at ${i}.`,
    );
  });
  const rows = Math.ceil(images.length / columns);
  const width = columns * (first.width + gap) - gap;
  const height = rows * (first.height + gap) - gap;
  const data = new Uint8Array(3 * width * height).fill(255);
  images.forEach((image, i) => {
    const left = (i % columns) * (first.width + gap);
    const top = Math.floor(i / columns) * (first.height + gap);
    for (let y = 0; y < image.height; y++) {
      const row = image.data.subarray(3 * y * image.width, 3 * (y + 1) * image.width);
      data.set(row, 3 * ((top + y) * width + left));
    }
  });
  return { width, height, data };
}
