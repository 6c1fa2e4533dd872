import { createHash } from "node:crypto";
import { type FileHandle, link, open, rename, rm } from "node:fs/promises";
import { DTYPE_BITS } from "../../weights/dtypes.js";
import { safetensorsHeader, type WrittenTensor } from "../../weights/safetensors-header.js";
import { codeOf, isMissing } from "./file.js";

/**
 * A safetensors file that is made tensor by tensor and says itself how far it is. Its header is known beforehand, all but
 * two entries of its metadata of fixed length: `sha256`, the hash of each tensor in their order, zeros where it is not
 * made yet, and `finished`, seconds since 1970, zeros until it is. The time of modification of a finished file is set to
 * that: where it is another, somebody has touched the file, and its bytes are checked by their hashes.
 */
export interface KeptLayout {
  /** With zeros for what changes. */
  readonly header: Uint8Array;
  /** Bytes of each tensor, from the start of the file. */
  readonly places: readonly ByteRange[];
  /** Of the whole file. */
  readonly bytes: number;
  /** Where the hash of each tensor stands. */
  readonly hashes: readonly ByteRange[];
  readonly finished: ByteRange;
}

interface ByteRange {
  readonly start: number;
  readonly end: number;
}

const HASH = "0".repeat(64);
const TIME = "0".repeat(12);

export function keptLayout(tensors: readonly WrittenTensor[]): KeptLayout {
  const metadata = { finished: TIME, sha256: HASH.repeat(tensors.length) };
  const header = safetensorsHeader(tensors, metadata);
  const text = Buffer.from(header).toString("latin1");
  const valueAt = (key: string): number =>
    text.indexOf(`"${key}":"`, text.indexOf('"__metadata__":{')) + key.length + 4;
  const [time, hash] = [valueAt("finished"), valueAt("sha256")];
  const places: ByteRange[] = [];
  let end = header.length;
  for (const tensor of tensors) {
    const start = end;
    end += bytesOf(tensor);
    places.push({ start, end });
  }
  const hashes = places.map((_, i) => ({ start: hash + i * HASH.length, end: hash + (i + 1) * HASH.length }));
  return { header, places, bytes: end, hashes, finished: { start: time, end: time + TIME.length } };
}

export const bytesOf = ({ dtype, shape }: WrittenTensor): number =>
  shape.reduce((product, dim) => product * dim, DTYPE_BITS[dtype] / 8);

/** True if the finished file is there. */
export async function isWhole(path: string, layout: KeptLayout): Promise<boolean> {
  const file = await openIfThere(path);
  if (!file) return false;
  try {
    const { size, mtimeMs } = await file.stat();
    const found = await readHeader(file, layout);
    const time = Number(found?.slice(layout.finished));
    if (!found || !(time > 0) || size !== layout.bytes) return false;
    if (mtimeMs === 1000 * time) return true;
    if ((await countWhole(file, layout, found)) < layout.places.length) return false;
    await file.utimes(time, time).catch(() => {}); // a file of somebody else is checked again the next time
    return true;
  } finally {
    await file.close();
  }
}

/**
 * How many of the first tensors are there, each checked by its hash. After them nothing counts as made.
 * @param file to be read and written, of an earlier attempt or empty
 */
export async function resume(file: FileHandle, layout: KeptLayout): Promise<number> {
  const found = await readHeader(file, layout);
  const done = found ? await countWhole(file, layout, found) : 0;
  const header = Buffer.from(layout.header);
  for (const { start, end } of layout.hashes.slice(0, done)) header.write(found?.slice({ start, end }) ?? "", start);
  await file.truncate(layout.places[done]?.start ?? layout.bytes);
  await writeAt(file, header, 0);
  return done;
}

/** Adds a tensor, and that it is made. */
export async function record(file: FileHandle, layout: KeptLayout, index: number, bytes: Uint8Array): Promise<void> {
  const [place, hash] = [layout.places[index] as ByteRange, layout.hashes[index] as ByteRange];
  await writeAt(file, bytes, place.start);
  await writeAt(file, Buffer.from(createHash("sha256").update(bytes).digest("hex")), hash.start);
}

/** All tensors are there. */
export async function markFinished(file: FileHandle, { finished }: KeptLayout): Promise<void> {
  const time = Math.floor(Date.now() / 1000);
  await writeAt(file, Buffer.from(String(time).padStart(TIME.length, "0")), finished.start);
  await file.datasync(); // or a power cut could leave the name without all the bytes
  await file.utimes(time, time);
}

/**
 * Gives a finished file its name. One that has got there first stays: it may be in use, and is the same.
 * @throws whatever failed
 */
export async function putInPlace(own: string, path: string, layout: KeptLayout): Promise<void> {
  try {
    await link(own, path);
  } catch (cause) {
    const isTaken = codeOf(cause) === "EEXIST" && (await isWhole(path, layout));
    if (!isTaken) return rename(own, path); // also where the file system has no links
  }
  await rm(own, { force: true });
}

/** The header as text, if it is that of the layout, whatever is made so far. */
async function readHeader(file: FileHandle, { header, hashes, finished }: KeptLayout) {
  const bytes = Buffer.alloc(header.length);
  const { bytesRead } = await file.read(bytes, 0, bytes.length, 0);
  if (bytesRead < bytes.length) return undefined;
  const blank = Buffer.from(bytes);
  const [first, last] = [hashes[0] as ByteRange, hashes.at(-1) as ByteRange];
  for (const { start, end } of [finished, { start: first.start, end: last.end }]) blank.fill("0", start, end);
  if (!blank.equals(header)) return undefined;
  return { slice: ({ start, end }: ByteRange): string => bytes.toString("latin1", start, end) };
}

const CHUNK_BYTES = 2 ** 22;

/** How many of the first tensors have the hashes that the header says. */
async function countWhole(
  file: FileHandle,
  { places, hashes }: KeptLayout,
  header: { slice(range: ByteRange): string },
): Promise<number> {
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (const [i, { start, end }] of places.entries()) {
    const expected = header.slice(hashes[i] as ByteRange);
    if (expected === HASH) return i;
    const hash = createHash("sha256");
    for (let at = start; at < end; ) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(CHUNK_BYTES, end - at), at);
      if (bytesRead === 0) return i;
      hash.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
    if (hash.digest("hex") !== expected) return i;
  }
  return places.length;
}

async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r+").catch(() => open(path, "r"));
  } catch (cause) {
    if (isMissing(cause)) return undefined;
    throw cause;
  }
}
