import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { ByteSource } from "../../src/weights/index.js";

/** Where the files written by PyTorch lie. */
export const torchGoldens = fileURLToPath(new URL("../goldens/torch", import.meta.url));
export const torchGolden = (name: string): Uint8Array => Uint8Array.from(readFileSync(`${torchGoldens}/${name}`));

/** A Python value as it can stand in a pickle, or anything else as bytes. */
export type Py =
  | null
  | boolean
  | number
  | string
  | Py[] // a tuple
  | Map<Py, Py>
  | { global: string }
  | { call: string; args: Py[] }
  | { id: Py }
  | { bytes: readonly number[] };

const little = (value: number | bigint, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 255n));
const utf8 = (text: string): number[] => [...new TextEncoder().encode(text)];

/** The instructions that leave a value on the stack. */
export function instructions(value: Py): number[] {
  if (value === null) return [0x4e];
  if (typeof value === "boolean") return [value ? 0x88 : 0x89];
  if (typeof value === "number") return [0x8a, 8, ...little(value, 8)];
  if (typeof value === "string") return [0x58, ...little(utf8(value).length, 4), ...utf8(value)];
  if (Array.isArray(value)) return [0x28, ...value.flatMap(instructions), 0x74];
  if (value instanceof Map) return [0x7d, 0x28, ...[...value].flat().flatMap(instructions), 0x75];
  if ("global" in value) return [0x63, ...utf8(`${value.global.replace(/\.(?=[^.]*$)/, "\n")}\n`)];
  if ("call" in value) return [...instructions({ global: value.call }), ...instructions(value.args), 0x52];
  if ("id" in value) return [...instructions(value.id), 0x51];
  return [...value.bytes];
}
export const pickle = (value: Py): Uint8Array => Uint8Array.of(0x80, 2, ...instructions(value), 0x2e);

export interface TensorFields {
  storage: string;
  key: string;
  size: number;
  offset: number;
  shape: Py;
  strides: Py;
}
/** A tensor as PyTorch pickles it; of one float32 unless told. */
export function tensor(fields: Partial<TensorFields> = {}): Py {
  const { storage, key, size, offset, shape, strides } = {
    ...{ storage: "torch.FloatStorage", key: "0", size: 1, offset: 0, shape: [1], strides: [1] },
    ...fields,
  };
  const id = { id: ["storage", { global: storage }, key, "cpu", size] };
  const hooks = { call: "collections.OrderedDict", args: [] };
  return { call: "torch._utils._rebuild_tensor_v2", args: [id, offset, shape, strides, false, hooks] };
}

/** An entry of a zip, with what its headers say where that is not the truth. */
export interface ZipEntry {
  name: string;
  data: Uint8Array;
  method?: number;
  flags?: number;
  size?: number;
  compressedSize?: number;
  offset?: number;
  /** Bytes of padding in the header before the data. */
  padding?: number;
  /** Bytes that nobody wrote before the header: a hole in the file. */
  gap?: number;
  localName?: string;
}
export interface ZipOptions {
  /** Sizes, offsets and the end record of 64 bits. */
  wide?: boolean;
  comment?: string;
  /** What the end record says. */
  count?: number;
  directorySize?: number;
  directoryStart?: number;
  disk?: number;
}
interface Segment {
  start: number;
  bytes: ArrayLike<number>;
}

/** A zip, right or wrong, as the parts of a file between which there may be holes. */
function zipSegments(entries: readonly ZipEntry[], options: ZipOptions): Segment[] {
  const segments: Segment[] = [];
  const directory: number[] = [];
  let at = 0;
  const write = (bytes: ArrayLike<number>) => {
    segments.push({ start: at, bytes });
    at += bytes.length;
  };
  const narrow = (value: number): number => (options.wide ? 0xffffffff : value);
  for (const entry of entries) {
    at += entry.gap ?? 0;
    const { flags = 0x808, method = 0, padding = 0 } = entry;
    const [size, packed] = [entry.size ?? entry.data.length, entry.compressedSize ?? entry.size ?? entry.data.length];
    const extra = padding ? [0x46, 0x42, ...little(padding, 2), ...new Array<number>(padding).fill(0x5a)] : [];
    const common = [...little(flags, 2), ...little(method, 2), ...little(0, 8)];
    const wide = options.wide
      ? [1, 0, 24, 0, ...little(size, 8), ...little(packed, 8), ...little(entry.offset ?? at, 8)]
      : [];
    const sizes = [...little(narrow(packed), 4), ...little(narrow(size), 4)];
    directory.push(...little(0x02014b50, 4), 0, 0, 0, 0, ...common, ...sizes);
    directory.push(...little(utf8(entry.name).length, 2), ...little(wide.length, 2), ...little(0, 10));
    directory.push(...little(narrow(entry.offset ?? at), 4), ...utf8(entry.name), ...wide);
    const localName = utf8(entry.localName ?? entry.name);
    const lengths = [...little(localName.length, 2), ...little(extra.length, 2)];
    write([...little(0x04034b50, 4), 0, 0, ...common, ...little(0, 8), ...lengths, ...localName, ...extra]);
    write(entry.data);
  }
  const [start, count] = [options.directoryStart ?? at, options.count ?? entries.length];
  const size = options.directorySize ?? directory.length;
  write(directory);
  const end = at;
  if (options.wide) {
    write([...little(0x06064b50, 4), ...little(44, 8), 45, 0, 45, 0, ...little(options.disk ?? 0, 4), ...little(0, 4)]);
    write([...little(count, 8), ...little(count, 8), ...little(size, 8), ...little(start, 8)]);
    write([...little(0x07064b50, 4), ...little(0, 4), ...little(end, 8), ...little(1, 4)]);
  }
  const counts = options.wide ? little(0xffffffff, 4) : [...little(count, 2), ...little(count, 2)];
  write([...little(0x06054b50, 4), ...little(options.wide ? 0 : (options.disk ?? 0), 4), ...counts]);
  const comment = utf8(options.comment ?? "");
  write([...little(narrow(size), 4), ...little(narrow(start), 4), ...little(comment.length, 2), ...comment]);
  return segments;
}

export function zip(entries: readonly ZipEntry[], options: ZipOptions = {}): Uint8Array {
  const segments = zipSegments(entries, options);
  const last = segments.at(-1) as Segment;
  const file = new Uint8Array(last.start + last.bytes.length);
  for (const { start, bytes } of segments) file.set(bytes, start);
  return file;
}

/** A zip with holes, whose holes take no memory. */
export function sparseZip(name: string, entries: readonly ZipEntry[], options: ZipOptions = {}): ByteSource {
  const segments = zipSegments(entries, options);
  const last = segments.at(-1) as Segment;
  return {
    name,
    size: last.start + last.bytes.length,
    async read(from, to) {
      const out = new Uint8Array(to - from);
      for (const { start, bytes } of segments) {
        for (let i = Math.max(from, start); i < Math.min(to, start + bytes.length); i++) {
          out[i - from] = bytes[i - start] as number;
        }
      }
      return out;
    },
    close: async () => {},
  };
}

const ONE_FLOAT = new Uint8Array(Float32Array.of(1.5).buffer);

/** The entries of a file as PyTorch writes it: a pickle, and storages by their keys. */
export function torchEntries(
  contents: Py | Uint8Array,
  storages: Readonly<Record<string, Uint8Array>> = { 0: ONE_FLOAT },
) {
  const data = contents instanceof Uint8Array ? contents : pickle(contents);
  const text = (name: string, value: string): ZipEntry => ({
    name: `archive/${name}`,
    data: Uint8Array.from(utf8(value)),
  });
  return [
    { name: "archive/data.pkl", data },
    text("byteorder", "little"),
    ...Object.entries(storages).map(
      ([key, bytes]): ZipEntry => ({ name: `archive/data/${key}`, data: bytes, padding: 9 }),
    ),
    text("version", "3\n"),
  ] as ZipEntry[];
}
export const torchFile = (contents: Py | Uint8Array, storages?: Readonly<Record<string, Uint8Array>>): Uint8Array =>
  zip(torchEntries(contents, storages));
