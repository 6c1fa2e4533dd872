import { Unzlib } from "fflate";
import { FemoError } from "../errors.js";

/** Bytes inflated at a time. DEFLATE expands at most 1032-fold, so one piece yields at most 17 MB before the check. */
const PIECE = 2 ** 14;

/**
 * Inflates a zlib stream, however small it was made, to at most `limit` bytes.
 *
 * @throws FemoError E_IMAGE if the stream is damaged, ends early, or holds more than `limit` bytes
 */
export function inflate(data: Uint8Array, limit: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  let length = 0;
  const stream = new Unzlib((piece) => {
    length += piece.length;
    if (length > limit)
      throw new FemoError("E_IMAGE", `PNG: compressed data holds more than the ${limit} bytes expected.`);
    pieces.push(piece);
  });
  try {
    for (let start = 0; start === 0 || start < data.length; start += PIECE) {
      // A copy: the inflater may keep what it is given.
      stream.push(data.slice(start, start + PIECE), start + PIECE >= data.length);
    }
  } catch (cause) {
    if (cause instanceof FemoError) throw cause;
    throw new FemoError("E_IMAGE", "PNG: compressed data is damaged or truncated.", { cause });
  }
  const inflated = new Uint8Array(length);
  let offset = 0;
  for (const piece of pieces) {
    inflated.set(piece, offset);
    offset += piece.length;
  }
  return inflated;
}
