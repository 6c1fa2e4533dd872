import { FemoError } from "../errors.js";

/** A PNG chunk: four letters and its content, without length and checksum. */
export interface Chunk {
  readonly type: string;
  readonly data: Uint8Array;
}

/** First eight bytes of every PNG file. */
const signature = Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10);

/**
 * The chunks of a PNG file up to and with IEND, checksums verified. What follows IEND is ignored.
 *
 * @throws FemoError E_IMAGE at the first byte that is not as it must be
 */
export function readChunks(bytes: Uint8Array): Chunk[] {
  if (bytes.length < signature.length || signature.some((byte, i) => bytes[i] !== byte)) {
    throw new FemoError("E_IMAGE", "PNG: the bytes do not begin with the PNG signature; this is another kind of file.");
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks: Chunk[] = [];
  for (let offset = signature.length; ; ) {
    const left = bytes.length - offset;
    if (left < 12) {
      throw new FemoError("E_IMAGE", `PNG: truncated: ${left} bytes left at byte ${offset}, before the IEND chunk.`);
    }
    const length = view.getUint32(offset);
    const type = String.fromCharCode(...bytes.subarray(offset + 4, offset + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) {
      throw new FemoError("E_IMAGE", `PNG: expected a chunk name of four letters at byte ${offset + 4}.`);
    }
    if (length > left - 12) {
      throw new FemoError(
        "E_IMAGE",
        `PNG: chunk ${type} at byte ${offset} claims ${length} bytes, but ${left - 12} are left: truncated or damaged.`,
      );
    }
    const end = offset + 8 + length;
    if (crc32(bytes.subarray(offset + 4, end)) !== view.getUint32(end)) {
      throw new FemoError("E_IMAGE", `PNG: checksum of chunk ${type} at byte ${offset} does not match: damaged.`);
    }
    chunks.push({ type, data: bytes.subarray(offset + 8, end) });
    if (type === "IEND") return chunks;
    offset = end + 4;
  }
}

/** The PNG file made of these chunks. */
export function writeChunks(chunks: readonly Chunk[]): Uint8Array {
  const length = chunks.reduce((sum, { data }) => sum + 12 + data.length, signature.length);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  bytes.set(signature);
  let offset = signature.length;
  for (const { type, data } of chunks) {
    const end = offset + 8 + data.length;
    view.setUint32(offset, data.length);
    bytes.set(latin1Bytes(type), offset + 4);
    bytes.set(data, offset + 8);
    view.setUint32(end, crc32(bytes.subarray(offset + 4, end)));
    offset = end + 4;
  }
  return bytes;
}

/** One byte per character; characters must be below U+0100. */
export const latin1Bytes = (text: string): Uint8Array => Uint8Array.from(text, (character) => character.charCodeAt(0));

/** One character per byte. Not `TextDecoder("latin1")`: by the web's standard that label means Windows-1252. */
export function latin1Text(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
  return text;
}

/** CRC-32 of ISO 3309, polynomial 0xEDB88320 reflected. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crcTable[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});
