import { FemoError } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import { DTYPE_BITS, SAFETENSORS_DTYPES, type TensorDtype } from "./dtypes.js";
import { isObject, parseJson } from "./json.js";
import { recognize, startsAsZip } from "./recognize.js";
import { describeValue, formatDims, quote } from "./text.js";
import { tiedTensors } from "./tied.js";

/** A tensor and where its bytes lie: little-endian, row-major, without gaps. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: TensorDtype;
  readonly shape: readonly number[];
  /** The file with the bytes, as the runtime opens it: a path without symbolic links on disk, a name in memory. */
  readonly file: string;
  /** Bytes from the start of the file; of any alignment. */
  readonly offset: number;
  /** Bytes of all elements. */
  readonly byteLength: number;
}

/** What the header of a safetensors file says. */
export interface SafetensorsFile {
  /** By name, in the order of their bytes; after them those that the file leaves out because another has their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The free text entries. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;

const DAMAGED = "The file is damaged or was written by a faulty tool: download it again.";

/**
 * Reads and checks the header of a safetensors file; no tensor's bytes are touched. Everything that the format demands
 * is checked: a header inside the file and below 100 MB, UTF-8 JSON that starts with "{" and repeats no key, known
 * element types, sizes that agree with shapes, and tensors that fill the rest of the file without gap or overlap.
 * A file with an element type that is not known is refused as a whole, because its sizes cannot be checked.
 * @param file what `TensorInfo.file` says, if not the name of the source
 * @throws FemoError E_FILE if the file is not such a file, E_WEIGHT if a tensor's type, shape and bytes do not agree
 */
export async function readSafetensorsHeader(source: ByteSource, file = source.name): Promise<SafetensorsFile> {
  const headerBytes = await readHeaderLength(source);
  const dataStart = 8 + headerBytes;
  const header = parseHeader(source.name, await source.read(8, dataStart));

  const tensors: TensorInfo[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") metadata = readMetadata(source.name, entry);
    else tensors.push(readEntry(source, name, entry, dataStart, file));
  }
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  checkCoverage(source, tensors, dataStart);
  const all = [...tensors, ...tiedTensors(tensors, metadata)];
  return { tensors: new Map(all.map((tensor) => [tensor.name, tensor])), metadata };
}

/** The first eight bytes: the length of the header, as an unsigned little-endian integer. */
async function readHeaderLength(source: ByteSource): Promise<number> {
  const start = await source.read(0, Math.min(source.size, 64));
  const other = startsAsZip(start) ? "a zip, as torch.save writes it. Open it as a checkpoint." : recognize(start);
  if (other) {
    throw new FemoError("E_FILE", `${source.name}: expected a safetensors file, found ${other}`);
  }
  if (source.size < 10) {
    throw new FemoError(
      "E_FILE",
      `${source.name}: expected a safetensors file of at least 10 bytes, found ${source.size}. Download it again.`,
    );
  }
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  const available = source.size - 8;
  if (length > BigInt(available)) {
    throw new FemoError(
      "E_FILE",
      `${source.name}: its header should have ${length} bytes, but only ${available} follow. ` +
        "The file is truncated or not a safetensors file: download it again.",
    );
  }
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new FemoError(
      "E_FILE",
      `${source.name}: its header has ${length} bytes; the format allows ${MAX_HEADER_BYTES}. ${DAMAGED}`,
    );
  }
  return Number(length);
}

function parseHeader(name: string, bytes: Uint8Array): Record<string, unknown> {
  if (bytes[0] !== 0x7b) {
    throw new FemoError(
      "E_FILE",
      `${name}: expected a header that starts with "{", found ${bytes.length === 0 ? "an empty one" : `byte ${bytes[0]}`}. ` +
        "It is not a safetensors file, or damaged: download it again.",
    );
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new FemoError("E_FILE", `${name}: expected a header in UTF-8, found other bytes. ${DAMAGED}`, { cause });
  }
  // It starts with "{", so what parses is an object.
  return parseJson(text, `${name}, header`, "E_FILE", DAMAGED) as Record<string, unknown>;
}

function readMetadata(file: string, entry: unknown): ReadonlyMap<string, string> {
  if (entry === null) return new Map(); // as the reference implementation reads it
  const entries = isObject(entry) ? Object.entries(entry) : undefined;
  const bad = entries?.find(([, value]) => typeof value !== "string");
  if (!entries || bad) {
    const where = bad ? `__metadata__.${quote(bad[0])}` : "__metadata__";
    const found = describeValue(bad ? bad[1] : entry);
    throw new FemoError(
      "E_FILE",
      `${file}: ${where}: expected ${bad ? "a string" : "an object of strings"}, found ${found}. ${DAMAGED}`,
    );
  }
  return new Map(entries as [string, string][]);
}

function readEntry(source: ByteSource, name: string, entry: unknown, dataStart: number, file: string): TensorInfo {
  const fail = (problem: string, advice = DAMAGED): never => {
    throw new FemoError("E_WEIGHT", `${source.name}: tensor ${quote(name)}: ${problem}. ${advice}`);
  };
  if (!isObject(entry))
    return fail(`expected an object with dtype, shape and data_offsets, found ${describeValue(entry)}`);
  const { dtype: stored, shape, data_offsets: range } = entry;

  const dtype = typeof stored === "string" ? SAFETENSORS_DTYPES.get(stored) : undefined;
  if (dtype === undefined) {
    const known = [...SAFETENSORS_DTYPES.keys()].join(", ");
    return fail(
      `expected a dtype out of ${known}, found ${describeValue(stored)}`,
      "Convert the file to one of these.",
    );
  }
  if (!isSizes(shape)) return fail(`expected a shape of whole numbers, found ${describeItems(shape)}`);
  if (!isSizes(range) || range.length !== 2) {
    return fail(`expected data_offsets [begin, end] in whole bytes, found ${describeItems(range)}`);
  }
  const [begin, end] = range as [number, number];
  const dataBytes = source.size - dataStart;
  if (begin > end || end > dataBytes) {
    return fail(
      `its bytes should be ${begin} to ${end} of the data, which has ${dataBytes}`,
      "The file is truncated or damaged: download it again.",
    );
  }
  // Without a zero the product only grows, so it is exact if it ends below 2⁵³.
  const bits = shape.includes(0) ? 0 : shape.reduce((product, dim) => product * dim, DTYPE_BITS[dtype]);
  if (bits > Number.MAX_SAFE_INTEGER || bits !== 8 * (end - begin)) {
    return fail(`expected ${bits / 8} bytes for ${dtype} ${formatDims(shape)}, found ${end - begin}`);
  }
  return { name, dtype, shape, file, offset: dataStart + begin, byteLength: end - begin };
}

/** The tensors, in the order of their bytes, must fill the data exactly. */
function checkCoverage(source: ByteSource, tensors: readonly TensorInfo[], dataStart: number): void {
  let covered = dataStart;
  let previous = "the header";
  for (const { name, offset, byteLength } of tensors) {
    if (offset !== covered) {
      const problem =
        offset < covered
          ? `its bytes overlap with those of ${previous} by ${covered - offset}`
          : `${offset - covered} bytes between it and ${previous} belong to no tensor`;
      throw new FemoError("E_WEIGHT", `${source.name}: tensor ${quote(name)}: ${problem}. ${DAMAGED}`);
    }
    covered = offset + byteLength;
    previous = `tensor ${quote(name)}`;
  }
  if (covered !== source.size) {
    throw new FemoError(
      "E_FILE",
      `${source.name}: expected ${covered} bytes, as its header says, found ${source.size}. ${DAMAGED}`,
    );
  }
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0 && !Object.is(n, -0));
}

function describeItems(value: unknown): string {
  if (!Array.isArray(value)) return describeValue(value);
  const items = value.slice(0, 8).map(describeValue).join(", ");
  return `[${items}${value.length > 8 ? `, ... ${value.length} items` : ""}]`;
}
