import { FemoError } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import { quote } from "./text.js";

/** Bytes `[start, end)` of a file. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** A zip whose entries are used where they lie. */
export interface StoredZip {
  /** In the order of the directory. */
  readonly names: readonly string[];
  /**
   * Where the contents of an entry lie; undefined if there is none of that name. Ranges of different entries never
   * overlap, and none reaches into the directory.
   * @throws FemoError E_FILE if the entry is compressed, encrypted, or where other data is
   */
  locate(name: string): Promise<ByteRange | undefined>;
  /** The same of an entry that may be compressed by DEFLATE: where it lies as it is stored, and what it has then. */
  locatePacked(name: string): Promise<PackedRange | undefined>;
}

/** Where an entry's bytes lie. */
export interface PackedRange extends ByteRange {
  /** Whether they are compressed. */
  readonly deflated: boolean;
  /** Bytes of the contents. */
  readonly size: number;
}

interface Entry {
  readonly method: number;
  readonly flags: number;
  readonly size: number;
  readonly compressedSize: number;
  /** Of the header before the contents. */
  readonly offset: number;
  /** Where the next header, or the directory, begins. */
  limit: number;
}

/** Far above the directory of any checkpoint: some 100 bytes for each of its tensors. */
const MAX_DIRECTORY_BYTES = 16 * 2 ** 20;
const [LOCAL, ENTRY, END, END_64, LOCATOR_64] = [0x04034b50, 0x02014b50, 0x06054b50, 0x06064b50, 0x07064b50];
const [LOCAL_BYTES, ENTRY_BYTES, END_BYTES, END_64_BYTES, LOCATOR_64_BYTES] = [30, 46, 22, 56, 20];
const MAX_32 = 0xffffffff;
const [ENCRYPTED, STORED, DEFLATED] = [1, 0, 8];
const UTF_8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const DAMAGED = "The file is damaged or was written by a faulty tool: download it again.";

/**
 * Reads the directory of a zip, with 64-bit sizes or without; no contents are touched. As PyTorch writes it, the file
 * must end with the directory, without a comment behind it.
 * @throws FemoError E_FILE if the directory is missing or malformed, or two entries have one name
 */
export async function readStoredZip(source: ByteSource): Promise<StoredZip> {
  const fail = (problem: string, advice = DAMAGED): never => {
    throw new FemoError("E_FILE", `${source.name}: ${problem}. ${advice}`);
  };
  const directory = await findDirectory(source, fail);
  if (directory.end - directory.start > MAX_DIRECTORY_BYTES) {
    fail(`its directory has ${directory.end - directory.start} bytes, more than ${MAX_DIRECTORY_BYTES}`);
  }
  const entries = parseDirectory(await source.read(directory.start, directory.end), directory, fail);

  const locateEntry = async (name: string, { method, compressedSize, size, flags, offset, limit }: Entry) => {
    const found = (problem: string): never => fail(`entry ${quote(name)} ${problem}`);
    if (flags & ENCRYPTED) fail(`entry ${quote(name)} is encrypted`, "Save it again without a password.");
    const nameBytes = new TextEncoder().encode(name);
    const headerEnd = offset + LOCAL_BYTES + nameBytes.length;
    if (headerEnd > limit) found("overlaps with what follows it");
    const header = viewOf(await source.read(offset, headerEnd));
    const agrees =
      header.getUint32(0, true) === LOCAL &&
      header.getUint16(26, true) === nameBytes.length &&
      nameBytes.every((byte, i) => header.getUint8(LOCAL_BYTES + i) === byte);
    if (!agrees) found("is not where the directory says");
    const start = headerEnd + header.getUint16(28, true); // behind the padding that aligns the contents
    if (compressedSize > limit - start) found("overlaps with what follows it");
    return { start, end: start + compressedSize, size, deflated: method === DEFLATED };
  };
  const isStored = ({ method, compressedSize, size }: Entry): boolean => method === STORED && compressedSize === size;

  return {
    names: [...entries.keys()],
    async locate(name) {
      const entry = entries.get(name);
      if (!entry) return undefined;
      if (!(entry.flags & ENCRYPTED || isStored(entry))) {
        fail(
          `entry ${quote(name)} is compressed, but tensors are used where they lie`,
          "Save it again with torch.save.",
        );
      }
      const { start, end } = await locateEntry(name, entry);
      return { start, end };
    },
    async locatePacked(name) {
      const entry = entries.get(name);
      if (!entry) return undefined;
      if (!isStored(entry) && entry.method !== DEFLATED) {
        fail(`entry ${quote(name)} is compressed otherwise than by DEFLATE`, "Save it again with numpy.savez.");
      }
      return locateEntry(name, entry);
    },
  };
}

type Fail = (problem: string, advice?: string) => never;

/** The end records say where the directory is, and how many entries it has. */
async function findDirectory(source: ByteSource, fail: Fail): Promise<ByteRange & { count: number }> {
  const tailStart = Math.max(0, source.size - END_BYTES - LOCATOR_64_BYTES);
  const tail = viewOf(await source.read(tailStart, source.size));
  const at = tail.byteLength - END_BYTES;
  if (at < 0 || tail.getUint32(at, true) !== END || tail.getUint16(at + 20, true) !== 0) {
    fail("it starts as a zip, but does not end with a zip's directory", "It is truncated: download it again.");
  }
  const locator = at - LOCATOR_64_BYTES;
  const is64 = locator >= 0 && tail.getUint32(locator, true) === LOCATOR_64;
  let endStart = tailStart + at;
  let [disks, count] = [tail.getUint32(at + 4, true), tail.getUint16(at + 10, true)];
  let [size, start] = [tail.getUint32(at + 12, true), tail.getUint32(at + 16, true)];
  if (is64) {
    endStart = uint64(tail, locator + 8);
    if (endStart > tailStart + locator - END_64_BYTES) fail("its end record of 64 bits is outside the file");
    const end = viewOf(await source.read(endStart, endStart + END_64_BYTES));
    if (end.getUint32(0, true) !== END_64) fail("its end record of 64 bits is not where it should be");
    disks = end.getUint32(16, true) | end.getUint32(20, true);
    [count, size, start] = [uint64(end, 32), uint64(end, 40), uint64(end, 48)];
  }
  if (disks !== 0) fail("it is one part of a zip in several", "Join the parts first.");
  if (start + size > endStart) fail(`its directory should be the bytes ${start} to ${start + size}, outside the file`);
  return { start, end: start + size, count };
}

function parseDirectory(bytes: Uint8Array, { start, count }: ByteRange & { count: number }, fail: Fail) {
  const view = viewOf(bytes);
  const entries = new Map<string, Entry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    if (at + ENTRY_BYTES > bytes.length || view.getUint32(at, true) !== ENTRY) {
      fail(`its directory should have ${count} entries, found ${i}`);
    }
    const nameEnd = at + ENTRY_BYTES + view.getUint16(at + 28, true);
    const extraEnd = nameEnd + view.getUint16(at + 30, true);
    const end = extraEnd + view.getUint16(at + 32, true);
    if (end > bytes.length) fail(`entry ${i} of its directory is cut off`);
    const name = decodeName(bytes.subarray(at + ENTRY_BYTES, nameEnd)) ?? fail(`the name of entry ${i} is not UTF-8`);
    if (entries.has(name)) fail(`it has two entries ${quote(name)}`);
    const [compressedSize, size, offset] = wideFields(view, at, nameEnd, extraEnd);
    if (offset > start) fail(`entry ${quote(name)} is outside the file`);
    const [flags, method] = [view.getUint16(at + 8, true), view.getUint16(at + 10, true)];
    entries.set(name, { method, flags, size, compressedSize, offset, limit: start });
    at = end;
  }
  if (at !== bytes.length) fail(`its directory has ${bytes.length - at} bytes more than its ${count} entries`);

  const inOrder = [...entries.values()].sort((a, b) => a.offset - b.offset);
  for (const [i, entry] of inOrder.entries()) entry.limit = inOrder[i + 1]?.offset ?? start;
  return entries;
}

/** Compressed size, size and offset; those that do not fit 32 bits are in the extra field 1, in an order of its own. */
function wideFields(view: DataView, at: number, extraStart: number, extraEnd: number): [number, number, number] {
  const fields = { size: 24, compressedSize: 20, offset: 42 };
  const values = Object.entries(fields).map(([, field]) => view.getUint32(at + field, true));
  for (let extra = extraStart; extra + 4 <= extraEnd; ) {
    const end = extra + 4 + view.getUint16(extra + 2, true);
    if (view.getUint16(extra, true) === 1) {
      let next = extra + 4;
      for (const [i, value] of values.entries()) {
        if (value !== MAX_32 || next + 8 > Math.min(end, extraEnd)) continue;
        values[i] = uint64(view, next);
        next += 8;
      }
    }
    extra = end;
  }
  const [size, compressedSize, offset] = values as [number, number, number];
  return [compressedSize, size, offset];
}

function decodeName(bytes: Uint8Array): string | undefined {
  try {
    return UTF_8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Rounded above 2⁵³, where no file reaches: such a value fails every comparison with a place in the file. */
const uint64 = (view: DataView, at: number): number => Number(view.getBigUint64(at, true));
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
