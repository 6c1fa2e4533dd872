import { FemoError } from "../errors.js";
import { cropPlanes, type Planes, pastePlanes } from "./planes.js";

export interface TileOptions {
  /**
   * Height and width of a tile in latent pixels, a multiple of 4: a quarter of it overlaps the next one. Default: all of
   * the latent at once, as diffusers does unless told otherwise.
   */
  tileSize?: number | undefined;
  /** Stops between tiles; the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
}

/**
 * Decodes a latent tile by tile, so that memory depends on the tile and not on the image: as diffusers' AutoencoderKL
 * with tiling enabled. Tiles start every three quarters of their size; where two overlap, the later one fades in
 * linearly. A latent that is no larger than a tile is decoded whole.
 * @param stride pixels of the image along one side of a latent pixel
 * @param decode [C, h, w] to [C', stride h, stride w]
 * @throws FemoError E_OPTION if the tile size is not a positive multiple of 4; the signal's reason if it was aborted
 */
export async function tiledDecode(
  latent: Planes,
  stride: number,
  decode: (tile: Planes) => Promise<Planes>,
  { tileSize, signal }: TileOptions = {},
): Promise<Planes> {
  checkTileSize("tileSize", tileSize);
  const [, height, width] = latent.dims;
  const size = tileSize ?? Math.max(height, width);
  const whole = height <= size && width <= size;
  const overlap = size / 4;
  const [tops, lefts] = whole ? [[0], [0]] : [starts(height, size - overlap), starts(width, size - overlap)];

  let image: Planes | undefined;
  let above: readonly Planes[] = [];
  for (const top of tops) {
    const row: Planes[] = [];
    for (const [column, left] of lefts.entries()) {
      signal?.throwIfAborted();
      const decoded = await decode(cropPlanes(latent, top, left, size));
      const [upper, before] = [above[column], row.at(-1)];
      if (upper) fadeIn(upper, decoded, 1, overlap * stride);
      if (before) fadeIn(before, decoded, 2, overlap * stride);
      row.push(decoded);
      image ??= emptyPlanes(decoded.dims[0], height * stride, width * stride);
      // Tiles to the right and below overwrite the overlap, into which this one is faded already.
      pastePlanes(image, decoded, top * stride, left * stride);
    }
    above = row;
  }
  return image as Planes;
}

/** @throws FemoError E_OPTION naming the option */
export function checkTileSize(option: string, size: number | undefined): void {
  if (size === undefined || (Number.isSafeInteger(size) && size > 0 && size % 4 === 0)) return;
  throw new FemoError("E_OPTION", `${option}: expected a positive multiple of 4, found ${size}`);
}

const starts = (size: number, step: number): number[] =>
  Array.from({ length: Math.ceil(size / step) }, (_, i) => i * step);

const emptyPlanes = (channels: number, height: number, width: number): Planes => ({
  dims: [channels, height, width],
  data: new Float32Array(channels * height * width),
});

/** Mixes the end of the tile before into the start of a tile, along axis 1 (downwards) or 2 (to the right), in place. */
function fadeIn(before: Planes, tile: Planes, axis: 1 | 2, overlap: number): void {
  const extent = Math.min(before.dims[axis], tile.dims[axis], overlap);
  const [channels, rows, columns] = tile.dims.with(axis, extent) as [number, number, number];
  const shift = before.dims[axis] - extent;
  for (let channel = 0; channel < channels; channel++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const weight = (axis === 1 ? y : x) / extent;
        const from = at(before, channel, axis === 1 ? y + shift : y, axis === 2 ? x + shift : x);
        const to = at(tile, channel, y, x);
        tile.data[to] = (before.data[from] as number) * (1 - weight) + (tile.data[to] as number) * weight;
      }
    }
  }
}

const at = ({ dims: [, height, width] }: Planes, channel: number, y: number, x: number): number =>
  (channel * height + y) * width + x;
