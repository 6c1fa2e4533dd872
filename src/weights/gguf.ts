import { FemoError } from "../errors.js";
import { type ByteSource, checkRange } from "./byte-source.js";
import { DTYPE_BITS, isBlockType, type TensorDtype } from "./dtypes.js";
import { BLOCK_TYPES, type BlockType } from "./gguf-blocks.js";
import { startsAsGguf } from "./recognize.js";
import type { TensorInfo } from "./safetensors.js";
import { formatDims, quote } from "./text.js";

/** What a GGUF file says before its data. */
export interface GgufFile {
  /** By name, in the order of their bytes; shapes row-major, as everywhere here. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** `general.architecture`, such as "flux" or "t5encoder", if the file says it. */
  readonly architecture: string | undefined;
}

/** Of all that comes before the data. Files with a tokenizer of 256 000 tokens have 10 MB. */
const MAX_HEADER_BYTES = 100_000_000;
/** ggml's own limits are 4 axes and names of 64 bytes, which files for diffusion models exceed. */
const MAX_RANK = 8;
const MAX_NAME_BYTES = 4096;
/** Arrays of arrays; nothing known has more than two. */
const MAX_DEPTH = 8;
const DEFAULT_ALIGNMENT = 32;
const ORIGINAL_SHAPE = "comfy.gguf.orig_shape.";

const DAMAGED = "The file is damaged or was written by a faulty tool: download it again.";

/** Bytes of the kinds of value of fixed size, by their number. */
const VALUE_BYTES: ReadonlyMap<number, number> = new Map([
  ...([0, 1, 7] as const).map((kind) => [kind, 1] as const), // uint8, int8, bool
  ...([2, 3] as const).map((kind) => [kind, 2] as const), // uint16, int16
  ...([4, 5, 6] as const).map((kind) => [kind, 4] as const), // uint32, int32, float32
  ...([10, 11, 12] as const).map((kind) => [kind, 8] as const), // uint64, int64, float64
]);
const UINT32 = 4;
const INT32 = 5;
const STRING = 8;
const ARRAY = 9;

/** Element types by their number. */
const DTYPES: ReadonlyMap<number, TensorDtype> = new Map<number, TensorDtype>([
  [0, "float32"],
  [1, "float16"],
  [24, "int8"],
  [25, "int16"],
  [26, "int32"],
  [27, "int64"],
  [28, "float64"],
  [30, "bfloat16"],
  ...Object.entries(BLOCK_TYPES).map(([dtype, { id }]) => [id, dtype as BlockType] as const),
]);
/** Names of those that are not read, as their files are called. */
const OTHER_TYPES: Readonly<Record<number, string>> = {
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
};

/**
 * Reads and checks what comes before the data of a GGUF file of version 2 or 3; no tensor's bytes are touched. Checked are
 * all lengths and counts against the bytes that are there, before anything is made of them; names, types and shapes;
 * that rows are whole blocks; and that the tensors lie inside the file, aligned, one behind the other. Bytes after the
 * last one are passed over, as ggml does.
 * @param file what `TensorInfo.file` says, if not the name of the source
 * @throws FemoError E_FILE if the file is not such a file, E_WEIGHT if a tensor is not described as it should be
 */
export async function readGguf(source: ByteSource, file = source.name): Promise<GgufFile> {
  const cursor = new Cursor(source);
  const { tensorCount, pairCount } = await readCounts(cursor);
  const { alignment, architecture, shapes } = await readPairs(cursor, pairCount);
  const entries: Entry[] = [];
  for (let i = 0; i < tensorCount; i++) entries.push(await readEntry(cursor));
  const dataStart = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = entries
    .map((entry) => place(source, entry, shapes.get(entry.name), dataStart, file))
    .sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkPlaces(source.name, tensors, dataStart, alignment);
  return { tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), architecture };
}

async function readCounts(cursor: Cursor): Promise<{ tensorCount: number; pairCount: number }> {
  const { name } = cursor.source;
  const fail = (problem: string, advice: string): never => {
    throw new FemoError("E_FILE", `${name}: ${problem}. ${advice}`);
  };
  const start = await cursor.source.read(0, Math.min(cursor.source.size, 8));
  if (!startsAsGguf(start)) fail('expected a GGUF file, which begins with "GGUF"', "Is it the right file?");
  await cursor.skip(4n);
  const version = await cursor.uint32();
  if (version !== 2 && version !== 3) {
    const bigEndian = version !== 0 && (version & 0xffff) === 0;
    const found = bigEndian ? "a big-endian file" : `version ${version}`;
    fail(`expected a GGUF file of version 2 or 3, found ${found}`, "Convert it with a current tool, or take another.");
  }
  const tensorCount = await cursor.count("tensors", 24); // a name's length, the rank, the type, the offset
  const pairCount = await cursor.count("entries", 12); // a key's length, the kind
  return { tensorCount, pairCount };
}

interface Pairs {
  readonly alignment: number;
  readonly architecture: string | undefined;
  /** Shapes of tensors that the file stores in another. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
}

/** The keys with their values, of which three are wanted. */
async function readPairs(cursor: Cursor, count: number): Promise<Pairs> {
  let alignment = DEFAULT_ALIGNMENT;
  let architecture: string | undefined;
  const shapes = new Map<string, readonly number[]>();
  for (let i = 0; i < count; i++) {
    const key = await cursor.string("a key");
    const kind = await cursor.uint32();
    const checkKind = (wanted: number, what: string): void => {
      if (kind === wanted) return;
      throw new FemoError("E_FILE", `${cursor.source.name}: ${key}: expected ${what}, found type ${kind}. ${DAMAGED}`);
    };
    if (key === "general.alignment") {
      checkKind(UINT32, "a uint32");
      alignment = await cursor.uint32();
      if (alignment === 0 || (alignment & (alignment - 1)) !== 0) {
        throw new FemoError(
          "E_FILE",
          `${cursor.source.name}: general.alignment: expected a power of two, found ${alignment}. ${DAMAGED}`,
        );
      }
    } else if (key === "general.architecture") {
      checkKind(STRING, "a string");
      architecture = await cursor.string(key);
    } else if (key.startsWith(ORIGINAL_SHAPE)) {
      checkKind(ARRAY, "an array of int32");
      shapes.set(key.slice(ORIGINAL_SHAPE.length), await readShape(cursor, key));
    } else await skipValue(cursor, key, kind);
  }
  return { alignment, architecture, shapes };
}

async function readShape(cursor: Cursor, key: string): Promise<number[]> {
  const kind = await cursor.uint32();
  const length = await cursor.count(key, 4);
  const shape: number[] = [];
  if (kind === INT32 && length <= MAX_RANK) {
    for (let i = 0; i < length; i++) shape.push((await cursor.uint32()) | 0);
    if (shape.every((size) => size >= 0)) return shape;
  }
  const found = kind === INT32 ? (shape.length > 0 ? formatDims(shape) : `${length} of them`) : `type ${kind}`;
  throw new FemoError(
    "E_FILE",
    `${cursor.source.name}: ${quote(key)}: expected at most ${MAX_RANK} sizes of type int32, found ${found}. ${DAMAGED}`,
  );
}

/** Passes over a value. Each element of an array has at least a byte, so that there are never more than bytes. */
async function skipValue(cursor: Cursor, key: string, kind: number, depth = 0): Promise<void> {
  const size = VALUE_BYTES.get(kind);
  if (size !== undefined) return cursor.skip(BigInt(size));
  if (kind === STRING) return cursor.skip(await cursor.uint64());
  if (kind !== ARRAY || depth === MAX_DEPTH) {
    const found = kind === ARRAY ? `arrays nested deeper than ${MAX_DEPTH}` : `${kind}`;
    throw new FemoError(
      "E_FILE",
      `${cursor.source.name}: ${quote(key)}: expected a type from 0 to 12, found ${found}. ${DAMAGED}`,
    );
  }
  const inner = await cursor.uint32();
  const innerSize = VALUE_BYTES.get(inner);
  const count = await cursor.count(key, innerSize ?? (inner === STRING ? 8 : 12));
  if (innerSize !== undefined) return cursor.skip(BigInt(count) * BigInt(innerSize));
  for (let i = 0; i < count; i++) await skipValue(cursor, key, inner, depth + 1);
}

/** A tensor as the file describes it. */
interface Entry {
  readonly name: string;
  /** Row-major. */
  readonly shape: readonly bigint[];
  readonly type: number;
  /** Bytes from the start of the data. */
  readonly offset: bigint;
}

async function readEntry(cursor: Cursor): Promise<Entry> {
  const name = await cursor.string("the name of a tensor");
  const rank = await cursor.uint32();
  if (rank > MAX_RANK) {
    throw new FemoError(
      "E_WEIGHT",
      `${cursor.source.name}: tensor ${quote(name)}: expected at most ${MAX_RANK} axes, found ${rank}. ${DAMAGED}`,
    );
  }
  const reversed: bigint[] = []; // the axis whose elements are neighbours comes first
  for (let i = 0; i < rank; i++) reversed.push(await cursor.uint64());
  return { name, shape: reversed.reverse(), type: await cursor.uint32(), offset: await cursor.uint64() };
}

/** Where a tensor lies in the file. */
function place(
  source: ByteSource,
  { name, shape: sizes, type, offset }: Entry,
  original: readonly number[] | undefined,
  dataStart: number,
  file: string,
): TensorInfo {
  const fail = (problem: string, advice = DAMAGED): never => {
    throw new FemoError("E_WEIGHT", `${source.name}: tensor ${quote(name)}: ${problem}. ${advice}`);
  };
  const dtype = DTYPES.get(type);
  if (dtype === undefined) {
    const known = [...DTYPES.values()].join(", ");
    return fail(`expected a type out of ${known}, found ${OTHER_TYPES[type] ?? type}`, "Take a file of one of these.");
  }
  const count = sizes.reduce((product, size) => product * size, 1n);
  const byteLength = (count * BigInt(16 * DTYPE_BITS[dtype])) / 128n; // bits of an element are whole sixteenths
  const available = BigInt(Math.max(0, source.size - dataStart));
  if (offset > available || byteLength > available - offset) {
    return fail(
      `${byteLength} bytes from byte ${offset} of the data should be its, which has ${available}`,
      "The file is truncated or damaged: download it again.",
    );
  }
  // An empty tensor has no bytes that would bound its other sizes.
  const shape = sizes.map((size) =>
    size <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(size) : fail(`has a size ${size}`),
  );
  const stored = original ?? shape;
  if (stored.reduce((product, size) => product * BigInt(size), 1n) !== count) {
    return fail(`expected as many elements as in ${formatDims(shape)}, found the original shape ${formatDims(stored)}`);
  }
  const elements = isBlockType(dtype) ? BLOCK_TYPES[dtype].elements : 1;
  const columns = [shape, stored].map((of) => of.at(-1) ?? 1).find((row) => row % elements !== 0);
  if (columns !== undefined) {
    return fail(`expected rows of whole blocks of ${elements} for ${dtype}, found rows of ${columns}`);
  }
  return { name, dtype, shape: stored, file, offset: dataStart + Number(offset), byteLength: Number(byteLength) };
}

/** The tensors, in the order of their bytes, must begin where the one before ends, up to alignment. */
function checkPlaces(file: string, tensors: readonly TensorInfo[], dataStart: number, alignment: number): void {
  const names = new Set<string>();
  let next = dataStart;
  let previous = "the header";
  for (const { name, offset, byteLength } of tensors) {
    const problem = names.has(name)
      ? "is there a second time"
      : offset !== next
        ? `should begin at byte ${next}, behind ${previous}, found ${offset}`
        : undefined;
    if (problem) throw new FemoError("E_WEIGHT", `${file}: tensor ${quote(name)}: ${problem}. ${DAMAGED}`);
    names.add(name);
    next = Math.ceil((offset + byteLength) / alignment) * alignment;
    previous = `tensor ${quote(name)}`;
  }
}

/** Reads forwards, in large pieces, never past the end of the file or the limit of a header. */
class Cursor {
  static readonly #PIECE = 1 << 16;
  readonly source: ByteSource;
  /** Bytes read or passed over. */
  at = 0;
  readonly #end: number;
  #piece: DataView = new DataView(new ArrayBuffer(0));
  #pieceStart = 0;

  constructor(source: ByteSource) {
    this.source = source;
    this.#end = Math.min(source.size, MAX_HEADER_BYTES);
  }

  async uint32(): Promise<number> {
    const at = await this.#take(4);
    return this.#piece.getUint32(at, true);
  }

  async uint64(): Promise<bigint> {
    const at = await this.#take(8);
    return this.#piece.getBigUint64(at, true);
  }

  /** How many of something follow, each of which has at least that many bytes. */
  async count(what: string, bytes: number): Promise<number> {
    const count = await this.uint64();
    if (count > BigInt(Math.floor((this.#end - this.at) / bytes))) this.#fail(`${count} ${quote(what)}`);
    return Number(count);
  }

  /** A length and UTF-8. */
  async string(what: string): Promise<string> {
    const length = await this.uint64();
    if (length > MAX_NAME_BYTES) this.#fail(`${what} of ${length} bytes (at most ${MAX_NAME_BYTES} are read)`);
    const at = await this.#take(Number(length));
    const bytes = new Uint8Array(this.#piece.buffer, this.#piece.byteOffset + at, Number(length));
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (cause) {
      throw new FemoError("E_FILE", `${this.source.name}: expected UTF-8 as ${what}, found other bytes. ${DAMAGED}`, {
        cause,
      });
    }
  }

  async skip(bytes: bigint): Promise<void> {
    if (bytes > BigInt(this.#end - this.at)) this.#fail(`a value of ${bytes} bytes`);
    this.at += Number(bytes);
  }

  /** Where in the piece that is held the next bytes are. */
  async #take(bytes: number): Promise<number> {
    if (bytes > this.#end - this.at) this.#fail(`${bytes} bytes more`);
    const start = this.at;
    if (start < this.#pieceStart || start + bytes > this.#pieceStart + this.#piece.byteLength) {
      const end = Math.min(this.#end, start + Math.max(bytes, Cursor.#PIECE));
      checkRange(this.source.name, this.source.size, start, end);
      const piece = await this.source.read(start, end);
      this.#piece = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
      this.#pieceStart = start;
    }
    this.at = start + bytes;
    return start - this.#pieceStart;
  }

  #fail(what: string): never {
    const limit = this.#end < this.source.size ? `, and a header has at most ${MAX_HEADER_BYTES}` : "";
    throw new FemoError(
      "E_FILE",
      `${this.source.name}: its header announces ${what} at byte ${this.at}; the file has ${this.source.size}${limit}. ` +
        "The file is truncated or damaged: download it again.",
    );
  }
}
