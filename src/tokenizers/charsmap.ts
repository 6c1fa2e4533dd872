import { FemoError } from "../errors.js";

/** The longest that a character may become, in bytes of UTF-8; NFKC's longest takes 33. */
const MAX_REPLACEMENT = 64;
/** Graphemes of as many bytes are looked up character by character. */
const LONG_GRAPHEME = 6;
/** Graphemes whose replacements are kept. */
const MAX_CACHED = 10_000;

/**
 * The table by which SentencePiece normalizes text, such as NFKC with control characters dropped: a trie of UTF-8 strings
 * as a double array (darts-clone), then their replacements, each with a zero behind it.
 *
 * As Hugging Face's `Precompiled` reads it, oddities included: a grapheme of less than 6 bytes becomes what its shortest
 * beginning in the table does, so that a mark that follows a replaced letter is lost.
 * @param bytes of the table
 * @param where in messages: file and field
 * @throws FemoError E_CONFIG if it is malformed
 */
export function readCharsmap(bytes: Uint8Array, where: string): (text: string) => string {
  const fail = (problem: string): never => {
    throw new FemoError("E_CONFIG", `${where}: ${problem}. Download the file again.`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = bytes.length >= 4 ? view.getUint32(0, true) : 0;
  if (size === 0 || size % 4 !== 0 || size > bytes.length - 4) {
    fail(
      `expected a table of characters, found ${bytes.length} bytes whose first four say that ${size} of them are one`,
    );
  }
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const replacements = bytes.subarray(4 + size);
  let start = 0;
  for (const [i, byte] of replacements.entries()) {
    if (byte === 0) start = i + 1;
    else if (i - start >= MAX_REPLACEMENT) fail(`expected replacements of at most ${MAX_REPLACEMENT} bytes`);
  }
  if (start !== replacements.length) fail("expected a zero behind the last replacement");

  const utf8 = new TextDecoder();
  const encoder = new TextEncoder();
  /** What the shortest string of the table that is a beginning of the key becomes. */
  const find = (key: Uint8Array): string | undefined => {
    let node = offset(units[0] as number);
    for (const byte of key) {
      node ^= byte;
      const unit = units[node];
      if (byte === 0 || unit === undefined || label(unit) !== byte) return undefined;
      node ^= offset(unit);
      if (!hasLeaf(unit)) continue;
      const from = (units[node] ?? 0) & 0x7fffffff;
      return from < replacements.length
        ? utf8.decode(replacements.subarray(from, replacements.indexOf(0, from)))
        : undefined;
    }
    return undefined;
  };
  const replaced = (grapheme: string): string => {
    const key = encoder.encode(grapheme);
    const whole = key.length < LONG_GRAPHEME ? find(key) : undefined;
    return whole ?? Array.from(grapheme, (character) => find(encoder.encode(character)) ?? character).join("");
  };
  const cache = new Map<string, string>();
  return (text) =>
    Array.from(graphemesOf(text), (grapheme) => {
      let found = cache.get(grapheme);
      if (found === undefined) {
        found = replaced(grapheme);
        if (cache.size >= MAX_CACHED) cache.clear();
        cache.set(grapheme, found);
      }
      return found;
    }).join("");
}

// A unit of a double array: a label, whether a string ends behind it, and how far away its children are.
const label = (unit: number): number => (unit & 0x800000ff) >>> 0;
const hasLeaf = (unit: number): boolean => (unit & 0x100) !== 0;
const offset = (unit: number): number => (unit >>> 10) << ((unit & 0x200) >>> 6);

const segmenter = new Intl.Segmenter("en", { granularity: "grapheme" });

/** What a reader sees as characters. The segmenter's time grows with the square of a text's length, so it gets parts. */
function* graphemesOf(text: string): Generator<string, void> {
  let size = PART;
  for (let at = 0; at < text.length; ) {
    const end = Math.min(text.length, at + size);
    const part = text.slice(at, isLowSurrogate(text.charCodeAt(end)) ? end + 1 : end);
    const graphemes = Array.from(segmenter.segment(part), ({ segment }) => segment);
    // The last one may go on behind the part.
    if (at + part.length < text.length) graphemes.pop();
    size = graphemes.length === 0 ? 2 * size : PART;
    for (const grapheme of graphemes) at += grapheme.length;
    yield* graphemes;
  }
}

/** UTF-16 units that the segmenter gets at once. */
const PART = 64;
const isLowSurrogate = (unit: number): boolean => unit >= 0xdc00 && unit <= 0xdfff;
