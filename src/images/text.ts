import { FemoError } from "../errors.js";
import { type Chunk, latin1Bytes, latin1Text } from "./chunks.js";
import { inflate } from "./inflate.js";

/** Inflated size at which a compressed text is taken for an attack. Prompts are a thousand times shorter. */
const MAX_TEXT_BYTES = 2 ** 24;

/**
 * A text as a PNG chunk: tEXt if it is Latin-1, else uncompressed iTXt (UTF-8).
 *
 * @param keyword 1 to 79 printable Latin-1 characters, no space at either end and no two in a row
 * @throws FemoError E_OPTION if the keyword is none, or the text holds NUL or half a surrogate pair
 */
export function textChunk(keyword: string, text: string): Chunk {
  if (!/^[\x21-\x7e\xa1-\xff]+( [\x21-\x7e\xa1-\xff]+)*$/.test(keyword) || keyword.length > 79) {
    throw new FemoError(
      "E_OPTION",
      `PNG text keyword: expected 1 to 79 printable Latin-1 characters without leading, trailing or double spaces, ` +
        `found ${JSON.stringify(keyword)}.`,
    );
  }
  if (text.includes("\0") || /\p{Surrogate}/u.test(text)) {
    throw new FemoError("E_OPTION", `PNG text "${keyword}": NUL and lone surrogates cannot be stored; remove them.`);
  }
  if (/^[\0-\xff]*$/.test(text)) return { type: "tEXt", data: latin1Bytes(`${keyword}\0${text}`) };
  // After the keyword: compression flag and method, then an empty language and an empty translated keyword.
  const head = latin1Bytes(`${keyword}\0\0\0\0\0`);
  const body = new TextEncoder().encode(text);
  const data = new Uint8Array(head.length + body.length);
  data.set(head);
  data.set(body, head.length);
  return { type: "iTXt", data };
}

/**
 * Keyword and text of a tEXt, zTXt or iTXt chunk; undefined for any other chunk.
 *
 * @throws FemoError E_IMAGE if a text chunk is malformed
 */
export function readTextChunk({ type, data }: Chunk): [keyword: string, text: string] | undefined {
  if (type !== "tEXt" && type !== "zTXt" && type !== "iTXt") return undefined;
  const [keywordBytes, content] = splitAtNul(type, data);
  const keyword = latin1Text(keywordBytes);
  if (type === "tEXt") return [keyword, latin1Text(content)];
  if (type === "zTXt") return [keyword, latin1Text(inflateText(type, content[0], content.subarray(1)))];
  const [compressed, method] = content;
  const [, afterLanguage] = splitAtNul(type, content.subarray(2));
  const [, body] = splitAtNul(type, afterLanguage);
  const utf8 = compressed === 0 ? body : inflateText(type, method, body);
  try {
    return [keyword, new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(utf8)];
  } catch (cause) {
    throw new FemoError("E_IMAGE", `PNG: chunk iTXt "${keyword}" is not UTF-8.`, { cause });
  }
}

function splitAtNul(type: string, data: Uint8Array): [before: Uint8Array, after: Uint8Array] {
  const end = data.indexOf(0);
  if (end === -1)
    throw new FemoError("E_IMAGE", `PNG: chunk ${type} ends before its text: a NUL separator is missing.`);
  return [data.subarray(0, end), data.subarray(end + 1)];
}

function inflateText(type: string, method: number | undefined, data: Uint8Array): Uint8Array {
  if (method !== 0)
    throw new FemoError("E_IMAGE", `PNG: chunk ${type}: expected compression method 0, found ${method}.`);
  return inflate(data, MAX_TEXT_BYTES);
}
