import { decode, encode } from "fast-png";
import { FemoError } from "../errors.js";
import { type Chunk, readChunks, writeChunks } from "./chunks.js";
import { checkImage, type RgbImage } from "./image.js";
import { inflate } from "./inflate.js";
import { readTextChunk, textChunk } from "./text.js";

/** Largest image that is decoded, in pixels: 8192 × 8192. */
const MAX_PIXELS = 2 ** 26;

/**
 * An 8-bit RGB PNG file.
 *
 * @param options.text texts by keyword, in this order ahead of the pixels. A Latin-1 text becomes a tEXt chunk, any
 *   other a UTF-8 iTXt chunk. Keyword "parameters" is where image generators keep the settings of an image, see
 *   `parametersText`.
 * @throws FemoError E_IMAGE if the image is malformed; E_OPTION if a keyword is not 1 to 79 printable Latin-1 characters
 *   without leading, trailing or double spaces, or a text holds NUL or a lone surrogate
 */
export function encodePng(image: RgbImage, options: { text?: Readonly<Record<string, string>> } = {}): Uint8Array {
  checkImage(image);
  const texts = Object.entries(options.text ?? {}).map(([keyword, text]) => textChunk(keyword, text));
  const [header, ...rest] = readChunks(encode({ ...image, channels: 3, depth: 8 }));
  return writeChunks([header as Chunk, ...texts, ...rest]);
}

/**
 * Image and texts of a PNG file with 8 bits per sample: grey, RGB or palette, interlaced or not. Alpha is dropped, not
 * blended. Texts are those of tEXt, zTXt and iTXt chunks; of several with one keyword the last counts.
 *
 * @throws FemoError E_IMAGE, and nothing else, if the bytes are not such a file: truncated, damaged (checksums are
 *   verified), of another bit depth, above 2²⁶ pixels, or with more or fewer pixels than its header says
 */
export function decodePng(bytes: Uint8Array): { image: RgbImage; text: Record<string, string> } {
  const chunks = readChunks(bytes);
  const header = readHeader(chunks);
  // The pixel decoder sees only what pixels need, and only after their amount is known to be right.
  const pixelChunks = chunks.filter(
    ({ type }) => type === "IHDR" || type === "PLTE" || type === "IDAT" || type === "IEND",
  );
  checkPixelData(pixelChunks, header);
  const text = Object.fromEntries(chunks.map(readTextChunk).filter((entry) => entry !== undefined));
  try {
    const { data, palette } = decode(writeChunks(pixelChunks));
    return { image: { width: header.width, height: header.height, data: toRgb(data, header, palette) }, text };
  } catch (cause) {
    if (cause instanceof FemoError) throw cause;
    throw new FemoError("E_IMAGE", "PNG: the pixel data is damaged.", { cause });
  }
}

interface Header {
  readonly width: number;
  readonly height: number;
  /** Samples stored per pixel; a palette index is one. */
  readonly channels: number;
  readonly indexed: boolean;
  readonly interlaced: boolean;
}

/** Channels by colour type: grey, RGB, palette, grey + alpha, RGB + alpha. */
const channelsOf: Readonly<Record<number, number>> = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };

function readHeader(chunks: readonly Chunk[]): Header {
  const [first] = chunks;
  if (first?.type !== "IHDR" || first.data.length !== 13) {
    throw new FemoError("E_IMAGE", `PNG: expected an IHDR chunk of 13 bytes first, found ${first?.type}.`);
  }
  if (chunks.filter(({ type }) => type === "IHDR").length > 1) throw new FemoError("E_IMAGE", "PNG: two IHDR chunks.");
  const unknown = chunks.find(({ type }) => /^[A-Z]/.test(type) && !["IHDR", "PLTE", "IDAT", "IEND"].includes(type));
  if (unknown) throw new FemoError("E_IMAGE", `PNG: chunk ${unknown.type} must be understood to decode, and is not.`);
  const view = new DataView(first.data.buffer, first.data.byteOffset);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, colorType, compression, filter, interlace] = first.data.subarray(8) as unknown as number[];
  if (width < 1 || height < 1 || width * height > MAX_PIXELS) {
    throw new FemoError("E_IMAGE", `PNG: expected 1 to ${MAX_PIXELS} pixels, found ${width}x${height}.`);
  }
  const channels = channelsOf[colorType as number];
  if (channels === undefined || compression !== 0 || filter !== 0 || (interlace !== 0 && interlace !== 1)) {
    throw new FemoError(
      "E_IMAGE",
      `PNG: the header is not of PNG: colour type ${colorType}, compression ${compression}, filter ${filter}, interlace ${interlace}.`,
    );
  }
  if (depth !== 8) {
    throw new FemoError("E_IMAGE", `PNG: expected 8 bits per sample, found ${depth}. Save the image as 8-bit RGB.`);
  }
  return { width, height, channels, indexed: colorType === 3, interlaced: interlace === 1 };
}

/** Throws unless the image data inflates to one filter byte and one row of samples per row, no more and no less. */
function checkPixelData(chunks: readonly Chunk[], header: Header): void {
  const idats = chunks.filter(({ type }) => type === "IDAT");
  const compressed = new Uint8Array(idats.reduce((sum, { data }) => sum + data.length, 0));
  idats.reduce((offset, { data }) => {
    compressed.set(data, offset);
    return offset + data.length;
  }, 0);
  const expected = scanlineBytes(header);
  const found = inflate(compressed, expected).length;
  if (found !== expected) {
    throw new FemoError(
      "E_IMAGE",
      `PNG: expected ${expected} bytes of pixel data, found ${found}: truncated or damaged.`,
    );
  }
}

/** First column, first row, column step and row step of the seven Adam7 passes. */
const adam7 = [
  [0, 0, 8, 8],
  [4, 0, 8, 8],
  [0, 4, 4, 8],
  [2, 0, 4, 4],
  [0, 2, 2, 4],
  [1, 0, 2, 2],
  [0, 1, 1, 2],
] as const;

/** Size of the inflated pixel data: each row of each pass takes a filter byte and its samples. */
function scanlineBytes({ width, height, channels, interlaced }: Header): number {
  const passes = interlaced ? adam7 : ([[0, 0, 1, 1]] as const);
  return passes.reduce((sum, [left, top, dx, dy]) => {
    const columns = Math.max(0, Math.ceil((width - left) / dx));
    const rows = Math.max(0, Math.ceil((height - top) / dy));
    return sum + (columns === 0 ? 0 : rows * (1 + columns * channels));
  }, 0);
}

/** Stored samples → RGB.  [height, width, channels] → [height, width, 3] */
function toRgb(samples: ArrayLike<number>, header: Header, palette: readonly number[][] | undefined): Uint8Array {
  const { width, height, channels, indexed } = header;
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    const sample = samples[i * channels] as number;
    const color = indexed ? palette?.[sample] : undefined;
    if (indexed && color === undefined) {
      throw new FemoError("E_IMAGE", `PNG: pixel ${i} has colour ${sample} of a palette of ${palette?.length ?? 0}.`);
    }
    for (let c = 0; c < 3; c++) {
      rgb[3 * i + c] = color ? (color[c] as number) : channels < 3 ? sample : (samples[i * channels + c] as number);
    }
  }
  return rgb;
}
