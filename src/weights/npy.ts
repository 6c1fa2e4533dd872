import { Inflate } from "fflate";
import { FemoError } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import { float16ToFloat32Bits } from "./float16.js";
import { formatDims, listSome, quote } from "./text.js";
import { type PackedRange, readStoredZip } from "./zip.js";

/** An array of numbers as NumPy saved it, in row-major order. */
export interface NpyArray {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

/** What the header of an array says. */
export interface NpyHeader {
  readonly shape: readonly number[];
  /** NumPy's name without the order of the bytes: "f8", "u1". */
  readonly kind: string;
}

/** The arrays of a `.npz` file. Nothing is read before it is asked for. */
export interface NpzFile {
  readonly name: string;
  /** Without ".npy". */
  readonly names: readonly string[];
  /** Undefined if it has no such array. @throws FemoError E_FILE as `array`, without looking at the values */
  header(name: string): Promise<NpyHeader | undefined>;
  /**
   * All of an array in float64.
   * @throws FemoError E_FILE if it is not there, is malformed, is of another type than real numbers, or has more than
   *   2^28 elements
   */
  array(name: string): Promise<NpyArray>;
  /**
   * Rows [start, end) of the first axis of bytes, such as pixels, without the others.
   * @throws FemoError E_FILE as `array`, and if it is compressed, of another type, or has no such rows
   */
  byteRows(name: string, start: number, end: number): Promise<Uint8Array>;
}

/** Two matrices of [2048, 2048], or 64 times as many elements. */
const MAX_ELEMENTS = 2 ** 28;
const MAX_HEADER = 2 ** 16;
const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];
const DAMAGED = "It is damaged, or no file of NumPy: download it again.";

const BYTES: Readonly<Record<string, number>> = {
  ...{ b1: 1, i1: 1, u1: 1, i2: 2, u2: 2, i4: 4, u4: 4, i8: 8, u8: 8 },
  ...{ f2: 2, f4: 4, f8: 8 },
};

interface Layout extends NpyHeader {
  readonly littleEndian: boolean;
  readonly columnMajor: boolean;
  readonly itemBytes: number;
  readonly elements: number;
  /** Of the first element in the array's own file. */
  readonly start: number;
}

/**
 * Reads a `.npz` file, as `numpy.savez` and `numpy.savez_compressed` write it.
 * @throws FemoError E_FILE if it is no such zip
 */
export async function readNpz(source: ByteSource): Promise<NpzFile> {
  const zip = await readStoredZip(source);
  const names = zip.names.flatMap((name) => (name.endsWith(".npy") ? [name.slice(0, -4)] : []));
  const whole = async (name: string, range: PackedRange): Promise<Uint8Array> => {
    if (range.size > 8 * MAX_ELEMENTS + MAX_HEADER) {
      throw new FemoError("E_FILE", `${source.name}: array ${quote(name)} has ${range.size} bytes, more than are read`);
    }
    const bytes = await source.read(range.start, range.end);
    return range.deflated ? inflateTo(bytes, range.size, `${source.name}: array ${quote(name)}`) : bytes;
  };
  const locate = async (name: string): Promise<PackedRange> => {
    const range = await zip.locatePacked(`${name}.npy`);
    if (range) return range;
    throw new FemoError("E_FILE", `${source.name}: has no array ${quote(name)}. It has:${listSome(names)}`);
  };
  const layoutOf = async (name: string, range: PackedRange): Promise<Layout> => {
    const shown = `${source.name}: array ${quote(name)}`;
    if (range.deflated) return readLayout(await whole(name, range), range.size, shown);
    return readLayout(await source.read(range.start, Math.min(range.end, range.start + MAX_HEADER)), range.size, shown);
  };
  return {
    name: source.name,
    names,
    async header(name) {
      const range = await zip.locatePacked(`${name}.npy`);
      return range && layoutOf(name, range);
    },
    async array(name) {
      return readNpy(await whole(name, await locate(name)), `${source.name}: array ${quote(name)}`);
    },
    async byteRows(name, start, end) {
      const range = await locate(name);
      const layout = await layoutOf(name, range);
      const [rows = 0, ...row] = layout.shape;
      const rowBytes = row.reduce((a, b) => a * b, 1);
      const right = layout.kind === "u1" && !layout.columnMajor && !range.deflated && start >= 0 && end <= rows;
      if (right && start <= end) {
        const from = range.start + layout.start;
        return source.read(from + start * rowBytes, from + end * rowBytes);
      }
      throw new FemoError(
        "E_FILE",
        `${source.name}: array ${quote(name)}: expected uncompressed bytes (numpy.savez of uint8) with rows ${start} to ` +
          `${end}, found ${range.deflated ? "compressed " : ""}${layout.kind} ${formatDims(layout.shape)}.`,
      );
    },
  };
}

/**
 * The array of a `.npy` file.
 * @param name in messages
 * @throws FemoError E_FILE if the bytes are none of real numbers, or have more than 2^28 elements
 */
export function readNpy(bytes: Uint8Array, name: string): NpyArray {
  const layout = readLayout(bytes, bytes.length, name);
  const { kind, littleEndian, itemBytes, elements, start, shape } = layout;
  const view = new DataView(bytes.buffer, bytes.byteOffset + start, elements * itemBytes);
  const read = READERS[kind] as (view: DataView, at: number, little: boolean) => number;
  const values = new Float64Array(elements);
  for (let i = 0; i < elements; i++) values[i] = read(view, i * itemBytes, littleEndian);
  return { shape, values: layout.columnMajor ? rowMajor(values, shape) : values };
}

const float16 = new DataView(new ArrayBuffer(4));
const READERS: Readonly<Record<string, (view: DataView, at: number, little: boolean) => number>> = {
  b1: (view, at) => Number(view.getUint8(at) !== 0),
  i1: (view, at) => view.getInt8(at),
  u1: (view, at) => view.getUint8(at),
  i2: (view, at, little) => view.getInt16(at, little),
  u2: (view, at, little) => view.getUint16(at, little),
  i4: (view, at, little) => view.getInt32(at, little),
  u4: (view, at, little) => view.getUint32(at, little),
  i8: (view, at, little) => Number(view.getBigInt64(at, little)),
  u8: (view, at, little) => Number(view.getBigUint64(at, little)),
  f2(view, at, little) {
    float16.setUint32(0, float16ToFloat32Bits(view.getUint16(at, little)));
    return float16.getFloat32(0);
  },
  f4: (view, at, little) => view.getFloat32(at, little),
  f8: (view, at, little) => view.getFloat64(at, little),
};

/** {'descr': '<f8', 'fortran_order': False, 'shape': (2048, 2048), } behind magic, version and its own length. */
function readLayout(bytes: Uint8Array, size: number, name: string): Layout {
  const fail = (problem: string, advice = DAMAGED): never => {
    throw new FemoError("E_FILE", `${name}: ${problem}. ${advice}`);
  };
  if (bytes.length < 12 || MAGIC.some((byte, i) => bytes[i] !== byte)) fail("it does not begin as NumPy's arrays do");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint8(6);
  if (version < 1 || version > 3) fail(`expected version 1, 2 or 3 of the format, found ${version}`);
  const [from, length] = version === 1 ? [10, view.getUint16(8, true)] : [12, view.getUint32(8, true)];
  if (length > MAX_HEADER - from || from + length > bytes.length) fail("its header is cut off, or longer than any");
  const text = String.fromCharCode(...bytes.subarray(from, from + length));
  const [, order = "", kind = ""] = /'descr': *'([<>|=])([a-z]\d{1,2})'/.exec(text) ?? [];
  const itemBytes = (Object.hasOwn(BYTES, kind) ? BYTES[kind] : undefined) ?? 0;
  if (itemBytes === 0) fail("expected an array of real numbers, found another type", "Save it as float64.");
  const fortran = /'fortran_order': *(True|False)/.exec(text)?.[1];
  const dims = /'shape': *\(([\d, ]*)\)/.exec(text)?.[1];
  if (fortran === undefined || dims === undefined) return fail("its header does not say shape and order");
  const shape = dims.split(",").flatMap((dim) => (dim.trim() === "" ? [] : [Number(dim)]));
  const elements = shape.includes(0) ? 0 : shape.reduce((a, b) => a * b, 1);
  if (shape.length > 32 || !shape.every(Number.isSafeInteger)) fail("expected a shape of at most 32 whole numbers");
  const found = `an array of ${formatDims(shape)} in ${size - from - length} bytes`;
  if (size - from - length !== elements * itemBytes) fail(`expected as many bytes as it has elements, found ${found}`);
  const columnMajor = fortran === "True" && shape.length > 1;
  return { shape, kind, itemBytes, elements, start: from + length, littleEndian: order !== ">", columnMajor };
}

/** Elements in the order of columns, the first axis fastest, in that of rows. */
function rowMajor(values: Float64Array, shape: readonly number[]): Float64Array {
  const strides = shape.map((_, axis) => shape.slice(0, axis).reduce((a, b) => a * b, 1));
  const index = shape.map(() => 0);
  const moved = new Float64Array(values.length);
  for (let i = 0; i < moved.length; i++) {
    moved[i] = values[index.reduce((sum, at, axis) => sum + at * (strides[axis] as number), 0)] as number;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = (index[axis] as number) + 1;
      if ((index[axis] as number) < (shape[axis] as number)) break;
      index[axis] = 0;
    }
  }
  return moved;
}

/** Bytes inflated at a time: DEFLATE expands at most 1032-fold, so that what a damaged file gives beside is bounded. */
const PIECE = 2 ** 14;

function inflateTo(data: Uint8Array, size: number, name: string): Uint8Array {
  const fail = (problem: string, cause?: unknown): never => {
    throw new FemoError("E_FILE", `${name}: ${problem}. ${DAMAGED}`, { cause });
  };
  if (size > 1032 * (data.length + 1)) fail(`${data.length} compressed bytes cannot hold ${size}`);
  const out = new Uint8Array(size);
  let length = 0;
  const stream = new Inflate((piece) => {
    if (length + piece.length > size) fail(`its compressed data holds more than ${size} bytes`);
    out.set(piece, length);
    length += piece.length;
  });
  try {
    for (let start = 0; start === 0 || start < data.length; start += PIECE) {
      stream.push(data.slice(start, start + PIECE), start + PIECE >= data.length);
    }
  } catch (cause) {
    if (cause instanceof FemoError) throw cause;
    fail("its compressed data is damaged or truncated", cause);
  }
  if (length !== size) fail(`its compressed data holds ${length} bytes instead of ${size}`);
  return out;
}
