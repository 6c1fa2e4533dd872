import { FemoError } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import { DTYPE_BITS } from "./dtypes.js";
import { MAX_PICKLE_BYTES, PickleObject, type PickleValue } from "./pickle.js";
import { recognize, startsAsZip } from "./recognize.js";
import type { TensorInfo } from "./safetensors.js";
import { describeValue, formatDims, listSome, quote } from "./text.js";
import { startsAsOldTorch, TensorRef, unpickleOldTensors, unpickleTensors } from "./torch-pickle.js";
import { type ByteRange, readStoredZip, type StoredZip } from "./zip.js";

/** The tensors of a file that `torch.save` wrote. */
export interface TorchFile {
  /** By name, in the order of their bytes. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The key that they are under; undefined if they are the file's only contents. */
  readonly key: string | undefined;
  /** Numbers and texts that lie beside them, such as "global_step". */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Keys of the weights in what training runs save, in the order of preference. The average over the training run is
 * what the authors of DiT and of most diffusion models sample from.
 */
const STATE_DICT_KEYS = ["ema", "state_dict", "model"];
const MAX_FORMAT_VERSION = 10; // PyTorch's kMaxSupportedFileFormatVersion
const CONVERT = "Load it in Python and save its state_dict with torch.save, or as safetensors.";
const DAMAGED = "The file is damaged or was written by a faulty tool: download it again.";

/**
 * Reads what `torch.save` wrote (`.pt`, `.pth`, `.bin`, `.ckpt`): a zip of a pickle that describes the tensors and of
 * their elements, uncompressed, which are used where they lie; or, before PyTorch 1.6, the pickle and the elements one
 * after the other. The pickle is read by an interpreter that knows tensors
 * and nothing else, so that nothing in the file can be executed. Tensors may share their elements, or be a part of a
 * larger one, as long as their elements are in row-major order without gaps. The state dict is the file's only contents,
 * or under "ema", "state_dict" or "model", in this order.
 * @param file what `TensorInfo.file` says, if not the name of the source
 * @throws FemoError E_FILE if the file is not such a file, has other objects in it or no state dict; E_WEIGHT if a tensor's
 *   elements are in another order, or not in the file
 */
export async function readTorchFile(source: ByteSource, file = source.name): Promise<TorchFile> {
  const { contents, locate } = (await startsOld(source)) ? await readOld(source) : await readZip(source);
  const { key, tensors } = findStateDict(source.name, contents);

  const storages = new Map<string, ByteRange | undefined>();
  const infos: TensorInfo[] = [];
  for (const [name, tensor] of tensors) {
    const storage = tensor.storage.key;
    if (!storages.has(storage)) storages.set(storage, await locate(storage));
    infos.push(place(source.name, name, tensor, storages.get(storage), file));
  }
  infos.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  return { tensors: new Map(infos.map((tensor) => [tensor.name, tensor])), key, metadata: metadataOf(contents) };
}

/** What is described, and where the elements of a storage lie, by its key. */
interface Container {
  readonly contents: PickleValue;
  locate(storage: string): Promise<ByteRange | undefined>;
}

async function readZip(source: ByteSource): Promise<Container> {
  await checkContainer(source);
  const zip = await readStoredZip(source);
  const folder = findFolder(source.name, zip.names);
  await checkByteOrder(source, zip, folder);
  const pickle = (await zip.locate(`${folder}data.pkl`)) as ByteRange;
  if (pickle.end - pickle.start > MAX_PICKLE_BYTES) {
    throw new FemoError(
      "E_FILE",
      `${source.name}: its data.pkl has ${pickle.end - pickle.start} bytes, more than ${MAX_PICKLE_BYTES}. ${CONVERT}`,
    );
  }
  const contents = unpickleTensors(await source.read(pickle.start, pickle.end), source.name);
  return { contents, locate: (storage) => zip.locate(`${folder}data/${storage}`) };
}

const startsOld = async (source: ByteSource): Promise<boolean> =>
  startsAsOldTorch(await source.read(0, Math.min(source.size, 8)));

/** The format before PyTorch 1.6: behind the pickles each storage's elements, and before them how many they are. */
async function readOld(source: ByteSource): Promise<Container> {
  const start = await source.read(0, Math.min(source.size, MAX_PICKLE_BYTES));
  const { contents, storages, end } = unpickleOldTensors(start, source.name);
  const ranges = new Map<string, ByteRange>();
  let at = end;
  for (const { key, dtype, size } of storages) {
    const count = at + 8 <= source.size ? await source.read(at, at + 8) : undefined;
    const elements = count && new DataView(count.buffer).getBigUint64(0, true);
    const bytes = dtype === undefined ? size : size * (DTYPE_BITS[dtype] / 8);
    if (elements !== BigInt(size) || bytes > source.size - at - 8) {
      const problem = elements === undefined || elements === BigInt(size) ? "is cut off" : `has ${elements}`;
      throw new FemoError(
        "E_FILE",
        `${source.name}: expected a storage of ${size} elements at byte ${at}; it ${problem}. ${DAMAGED}`,
      );
    }
    ranges.set(key, { start: at + 8, end: at + 8 + bytes });
    at += 8 + bytes;
  }
  return { contents, locate: async (storage) => ranges.get(storage) };
}

function metadataOf(contents: PickleValue): ReadonlyMap<string, string> {
  const entries: [string, string][] = [];
  for (const [key, value] of contents instanceof Map ? contents : []) {
    if (typeof key === "string" && (typeof value === "string" || typeof value === "number")) {
      entries.push([key, String(value)]);
    }
  }
  return new Map(entries);
}

async function checkContainer(source: ByteSource): Promise<void> {
  const start = await source.read(0, Math.min(source.size, 512));
  if (startsAsZip(start)) return;
  const text = (from: number, to: number): string => String.fromCharCode(...start.subarray(from, to));
  const old = "of early PyTorch. Save it again in Python: torch.save(torch.load(path, weights_only=True), path).";
  const found =
    recognize(start) ??
    (start.length === 0
      ? "an empty file. Download it again."
      : start[0] === 0x80
        ? "a plain pickle, not one of tensors. Save a state dict in Python: torch.save(model.state_dict(), path)."
        : text(257, 262) === "ustar"
          ? `a tar, the format ${old}`
          : start[8] === 0x7b
            ? "what looks like a safetensors file. Let its name end with .safetensors."
            : "something else. Is it the right file, and the download complete?");
  throw new FemoError("E_FILE", `${source.name}: expected a zip as torch.save writes it, found ${found}`);
}

/** The folder in the zip that everything is in, with its slash: the file's name when it was written, or "archive/". */
function findFolder(name: string, names: readonly string[]): string {
  const folders = names.flatMap((entry) => /^([^/]+\/)data\.pkl$/.exec(entry)?.[1] ?? []);
  const [folder] = folders;
  if (folder === undefined || folders.length > 1) {
    throw new FemoError(
      "E_FILE",
      `${name}: expected a zip with one data.pkl, as torch.save writes it, found ${folders.length}. Is it the right file?`,
    );
  }
  if (names.includes(`${folder}constants.pkl`)) {
    throw new FemoError("E_FILE", `${name}: it is a TorchScript program, whose code is not run here. ${CONVERT}`);
  }
  return folder;
}

async function checkByteOrder(source: ByteSource, zip: StoredZip, folder: string): Promise<void> {
  const read = async (entry: string): Promise<string | undefined> => {
    const range = await zip.locate(folder + entry);
    if (!range) return undefined;
    return String.fromCharCode(...(await source.read(range.start, Math.min(range.end, range.start + 20)))).trim();
  };
  const order = (await read("byteorder")) ?? "little"; // PyTorch before 2.1 did not say
  if (order !== "little") {
    const problem = `expected little-endian numbers, found the byte order ${quote(order)}`;
    throw new FemoError("E_FILE", `${source.name}: ${problem}. Save it again on a little-endian machine.`);
  }
  const version = (await read("version")) ?? (await read(".data/version")) ?? "3";
  if (!(/^\d+$/.test(version) && Number(version) <= MAX_FORMAT_VERSION)) {
    const problem = `expected a format version of at most ${MAX_FORMAT_VERSION}, found ${quote(version)}`;
    throw new FemoError("E_FILE", `${source.name}: ${problem}. ${CONVERT}`);
  }
}

type StateDict = ReadonlyMap<string, TensorRef>;

const isStateDict = (value: PickleValue | undefined): value is StateDict & PickleValue =>
  value instanceof Map && [...value].every(([name, tensor]) => typeof name === "string" && tensor instanceof TensorRef);

function findStateDict(name: string, contents: PickleValue): { key: string | undefined; tensors: StateDict } {
  if (isStateDict(contents)) return { key: undefined, tensors: contents };
  if (!(contents instanceof Map)) {
    const advice = "Save a state dict: torch.save(model.state_dict(), path).";
    throw new FemoError("E_FILE", `${name}: expected tensors by name, found ${describe(contents)}. ${advice}`);
  }
  const dictionary: ReadonlyMap<PickleValue, PickleValue> = contents;
  for (const key of STATE_DICT_KEYS) {
    const tensors = dictionary.get(key);
    if (isStateDict(tensors)) return { key, tensors };
  }
  const others = [...dictionary].filter(([key, value]) => !(typeof key === "string" && value instanceof TensorRef));
  const lines = others.slice(0, 11).map(([key, value]) => `${describe(key)}: ${describe(value)}`);
  const more = others.length > 10 ? ` (the first 10 of ${others.length})` : "";
  throw new FemoError(
    "E_FILE",
    `${name}: expected tensors by name, alone or under ${STATE_DICT_KEYS.map(quote).join(", ")}. ${CONVERT} ` +
      `Found also${more}:${listSome(lines.slice(0, 10))}`,
  );
}

function describe(value: PickleValue): string {
  if (value instanceof PickleObject) return value.what;
  if (value instanceof Map) return `a dictionary of ${value.size}`;
  if (Array.isArray(value)) return `a tuple of ${value.length}`;
  return typeof value === "bigint" ? String(value) : describeValue(value);
}

/** Where a tensor's elements lie in the file. */
function place(
  source: string,
  name: string,
  { storage, dtype, offset, shape, strides }: TensorRef,
  range: ByteRange | undefined,
  file: string,
): TensorInfo {
  const fail = (problem: string, advice = DAMAGED): never => {
    throw new FemoError("E_WEIGHT", `${source}: tensor ${quote(name)}: ${problem}. ${advice}`);
  };
  if (!range) return fail(`its elements should be in the storage ${storage.key.slice(0, 40)}, which is not there`);
  if (!isContiguous(shape, strides)) {
    return fail(
      `expected elements in row-major order, found ${formatDims(shape)} with strides ${formatDims(strides)}`,
      "Save a copy in that order, in Python: tensor.contiguous().",
    );
  }
  const bytes = DTYPE_BITS[dtype] / 8;
  // Without a zero the product only grows, so it is exact if it ends below 2⁵³; above, it is larger than any file.
  const count = shape.includes(0) ? 0 : shape.reduce((product, dim) => product * dim, 1);
  const available = Math.min(range.end - range.start, storage.size * (storage.dtype ? bytes : 1));
  if ((offset + count) * bytes > available) {
    return fail(
      `expected ${dtype} ${formatDims(shape)} from element ${offset} of its storage, found ${available} bytes there`,
    );
  }
  return { name, dtype, shape, file, offset: range.start + offset * bytes, byteLength: count * bytes };
}

/** Row-major without gaps; the stride of an axis that has one index, and those of an empty tensor, do not matter. */
function isContiguous(shape: readonly number[], strides: readonly number[]): boolean {
  if (shape.includes(0)) return true;
  let expected = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 1) continue;
    if (strides[axis] !== expected) return false;
    expected *= shape[axis] as number;
  }
  return true;
}
