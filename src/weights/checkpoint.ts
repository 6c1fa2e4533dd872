import { FemoError } from "../errors.js";
import { type ByteSource, checkRange, type FileState } from "./byte-source.js";
import type { DerivedTensor } from "./derived.js";
import { toFloat32 } from "./dtypes.js";
import { type FolderSource, pathInside } from "./folder-source.js";
import { isObject, parseJson } from "./json.js";
import { type PackedMatrix, type PackedPart, packedParts, partName } from "./packed.js";
import { dequantize } from "./quantize.js";
import type { TensorInfo } from "./safetensors.js";
import { readMetadata, readTensors } from "./tensor-file.js";
import { type CheckpointTensor, filesOf, isDerived, isPacked } from "./tensors.js";
import { describeValue, listSome, quote } from "./text.js";
import { tiedTensors } from "./tied.js";
import { type ExpectedTensor, type VerifyOptions, verifyTensors } from "./verify.js";
import { unwrapped } from "./wrappers.js";

/** Opens `TensorInfo.file` anew; who opens closes. */
export type OpenFile = (file: string) => Promise<ByteSource>;

/**
 * The tensors of one or several files, by name, and such as are computed from them. It holds no file open: bytes are
 * fetched by opening the file again, so there is nothing to close.
 */
export class Checkpoint {
  /** Path of the file or of the index of its shards, for messages. */
  readonly name: string;
  readonly #tensors: ReadonlyMap<string, CheckpointTensor>;
  readonly #open: OpenFile | undefined;
  readonly #files: ReadonlyMap<string, FileState>;

  private constructor(
    name: string,
    tensors: ReadonlyMap<string, CheckpointTensor>,
    open: OpenFile | undefined,
    files: ReadonlyMap<string, FileState>,
  ) {
    this.name = name;
    this.#tensors = tensors;
    this.#open = open;
    this.#files = files;
  }

  /**
   * A checkpoint of known tensors.
   * @param open without it there are names and shapes, which is enough to build graphs, but no bytes
   * @param files as they were when the tensors were read from them
   * @throws FemoError E_WEIGHT if a name occurs twice
   */
  static fromTensors(
    name: string,
    tensors: Iterable<CheckpointTensor>,
    open?: OpenFile,
    files: ReadonlyMap<string, FileState> = new Map(),
  ): Checkpoint {
    const byName = new Map<string, CheckpointTensor>();
    for (const tensor of tensors) {
      const other = byName.get(tensor.name);
      if (other) {
        const [first, second] = [other, tensor].map((one) => filesOf(one).join(" and "));
        throw new FemoError(
          "E_WEIGHT",
          `${name}: tensor ${quote(tensor.name)} is in ${first} and again in ${second}. ` +
            "Download the files again, all of the same version.",
        );
      }
      byName.set(tensor.name, tensor);
    }
    return new Checkpoint(name, byName, open, files);
  }

  /**
   * A checkpoint of files that are open, such as buffers: safetensors, or what `torch.save` wrote, names as
   * `openCheckpoint`. They must stay open while bytes are read, and differ in name.
   * @throws FemoError E_FILE, E_WEIGHT as `readTensors`, or if a name occurs twice
   */
  static async fromSources(name: string, sources: readonly ByteSource[]): Promise<Checkpoint> {
    const byName = new Map(sources.map((source) => [source.name, source]));
    const tensors = [];
    for (const source of byName.values()) tensors.push(...(await readTensors(source)));
    return Checkpoint.fromTensors(name, unwrapped(tensors), async (file) => {
      const source = byName.get(file);
      if (!source) throw new FemoError("E_FILE", `${name}: has no file ${quote(file)}.`);
      // Whoever opened the source closes it.
      const { size } = source;
      return { name: file, size, read: (start, end) => source.read(start, end), close: async () => {} };
    });
  }

  /**
   * The same files with tensors under other names, or parts of them that are contiguous.
   * @throws FemoError E_WEIGHT if a name occurs twice
   */
  withTensors(tensors: Iterable<CheckpointTensor>): Checkpoint {
    return Checkpoint.fromTensors(this.name, tensors, this.#open, this.#files);
  }

  /** With tensors that are computed, in the place of those of the same names or beside them; of two the later counts. */
  withDerived(tensors: Iterable<DerivedTensor | PackedMatrix>): Checkpoint {
    const byName = new Map(this.#tensors);
    for (const tensor of tensors) byName.set(tensor.name, tensor);
    return new Checkpoint(this.name, byName, this.#open, this.#files);
  }

  /**
   * The tensors that have no bytes in any file yet, each under the name that it has in one that keeps them.
   * @throws FemoError E_WEIGHT if two would have the same
   */
  derived(): Map<string, DerivedTensor> {
    const found = new Map<string, DerivedTensor>();
    for (const tensor of this.#tensors.values()) {
      mapLeaves(tensor, (leaf, name) => {
        if (!isDerived(leaf)) return leaf;
        if (found.has(name)) {
          throw new FemoError(
            "E_WEIGHT",
            `${this.name}: a tensor is named ${quote(name)}, as is a part of another. Rename it.`,
          );
        }
        found.set(name, leaf);
        return leaf;
      });
    }
    return found;
  }

  /** With those tensors in a file. @param kept has them under the names of `derived` */
  withKept(kept: Checkpoint): Checkpoint {
    const stored = (leaf: TensorInfo | DerivedTensor, name: string): TensorInfo | DerivedTensor =>
      isDerived(leaf) ? (kept.get(name) as TensorInfo) : leaf;
    const tensors = [...this.#tensors].map(([name, tensor]) => [name, { ...mapLeaves(tensor, stored), name }] as const);
    const keptFiles = new Set(kept.tensors().flatMap(filesOf));
    const open: OpenFile = (file) => (keptFiles.has(file) ? kept : this).#source(file);
    return new Checkpoint(this.name, new Map(tensors), open, new Map([...this.#files, ...kept.#files]));
  }

  /** `ByteSource.fingerprint` of a `TensorInfo.file` when it was opened. */
  fingerprint(file: string): string | undefined {
    return this.stateOf(file).fingerprint;
  }

  /** What else is known of a `TensorInfo.file`. */
  stateOf(file: string): FileState {
    return this.#files.get(file) ?? {};
  }

  /** The tensor of that name, if there is one. */
  get(name: string): CheckpointTensor | undefined {
    return this.#tensors.get(name);
  }

  /** The names of all tensors, file by file, in the order of their bytes. */
  names(): string[] {
    return [...this.#tensors.keys()];
  }

  /** All tensors, in the order of `names`. */
  tensors(): CheckpointTensor[] {
    return [...this.#tensors.values()];
  }

  /**
   * Checks that the tensors are exactly those a model needs, so that neither is anything missing nor anything ignored
   * by mistake.
   * @throws FemoError E_WEIGHT, one for all differences, with both shapes
   */
  verify(expected: Iterable<ExpectedTensor>, options?: VerifyOptions): void {
    verifyTensors(this.name, this.#tensors, expected, options);
  }

  /**
   * The bytes of a tensor as stored: little-endian, row-major. One that is computed is computed; a matrix in few bits
   * gives those of the float32 values that it stands for.
   * @throws FemoError E_WEIGHT if there is no such tensor, E_FILE if its bytes cannot be read
   */
  async readBytes(name: string): Promise<Uint8Array> {
    const tensor = this.#tensors.get(name);
    if (!tensor) {
      throw new FemoError(
        "E_WEIGHT",
        `${this.name}: has no tensor ${quote(name)}. It has:${listSome(this.names().map(quote))}`,
      );
    }
    if (!isPacked(tensor)) return this.#bytesOf(tensor);
    return new Uint8Array((await this.#unpacked(tensor)).buffer);
  }

  /**
   * The elements of a tensor as float32, in row-major order, whatever their stored precision. For small tensors and
   * tests: the runtime reads weights from their files itself.
   * @throws FemoError E_WEIGHT if there is no such tensor or it is not of a floating-point type of 16, 32 or 64 bits
   */
  async readTensor(name: string): Promise<Float32Array> {
    const tensor = this.#tensors.get(name);
    if (tensor && isPacked(tensor)) return this.#unpacked(tensor);
    const bytes = await this.readBytes(name);
    return toFloat32(bytes, tensor?.dtype ?? "float32", `${this.name}: tensor ${quote(name)}`);
  }

  async #unpacked({ parts, bits, block, shape }: PackedMatrix): Promise<Float32Array> {
    const [rows, columns] = shape as [number, number];
    const bytes: Partial<Record<PackedPart, Uint8Array>> = {};
    for (const part of packedParts) {
      const leaf = parts[part];
      if (leaf) bytes[part] = await this.#bytesOf(leaf);
    }
    const { values = new Uint8Array(0), zeros } = bytes;
    const floats = (part: "scales" | "minimums"): Float32Array | undefined =>
      bytes[part] && toFloat32(bytes[part], "float32", part);
    const [scales = new Float32Array(0), minimums] = [floats("scales"), floats("minimums")];
    return dequantize({ bits, block, values, scales, zeros, minimums }, rows, columns);
  }

  async #bytesOf(tensor: TensorInfo | DerivedTensor): Promise<Uint8Array> {
    if (isDerived(tensor)) return tensor.make();
    if (!this.#open) {
      throw new FemoError(
        "E_FILE",
        `${this.name}: tensor ${quote(tensor.name)} has no bytes: the checkpoint was made from shapes only. Open its file.`,
      );
    }
    const source = await this.#source(tensor.file);
    try {
      const end = tensor.offset + tensor.byteLength;
      checkRange(source.name, source.size, tensor.offset, end);
      return await source.read(tensor.offset, end);
    } finally {
      await source.close();
    }
  }

  /**
   * The free text entries in the headers of its files, read anew; of several files that have an entry the last one's.
   * @throws FemoError E_FILE, E_WEIGHT if a file cannot be read
   */
  async metadata(): Promise<ReadonlyMap<string, string>> {
    const entries: [string, string][] = [];
    for (const file of this.#open ? new Set(this.tensors().flatMap(filesOf)) : []) {
      const source = await (this.#open as OpenFile)(file);
      try {
        entries.push(...(await readMetadata(source)));
      } finally {
        await source.close();
      }
    }
    return new Map(entries);
  }

  #source(file: string): Promise<ByteSource> {
    if (this.#open) return this.#open(file);
    throw new FemoError("E_FILE", `${this.name}: was made from shapes only. Open ${file}.`);
  }
}

/** The same tensor with other leaves (`leavesOf`). @param map is told under which name it would be kept */
function mapLeaves(
  tensor: CheckpointTensor,
  map: (leaf: TensorInfo | DerivedTensor, name: string) => TensorInfo | DerivedTensor,
): CheckpointTensor {
  if (!isPacked(tensor)) return map(tensor, tensor.name);
  const entries = Object.entries(tensor.parts) as [PackedPart, TensorInfo | DerivedTensor][];
  const parts = entries.map(([part, leaf]) => [part, map(leaf, partName(tensor.name, part))]);
  return { ...tensor, parts: Object.fromEntries(parts) };
}

/**
 * Opens a checkpoint in a folder: a `.safetensors` or `.gguf` file or one of `torch.save` (`.bin`, `.pt`), or the index of a sharded
 * one, a `.json` file whose `weight_map` says which tensor is in which file beside it. Names lose what wrappers of
 * training, such as `torch.compile`, put before them; tied tensors, which are stored once, are there by every name.
 * @throws FemoError E_FILE, E_WEIGHT if a file is missing or malformed, or an index does not describe its files
 */
export async function openCheckpoint(folder: FolderSource, path: string): Promise<Checkpoint> {
  const name = `${folder.name}/${path}`;
  const files = new Map<string, string>(); // where the runtime finds it → path in the folder
  const states = new Map<string, FileState>();
  const open: OpenFile = (file) => folder.open(files.get(file) ?? file);
  const readFile = async (inside: string): Promise<TensorInfo[]> => {
    const file = folder.resolve(inside);
    files.set(file, inside);
    const source = await folder.open(inside);
    states.set(file, stateOf(source));
    try {
      return await readTensors(source, file);
    } finally {
      await source.close();
    }
  };
  if (!path.endsWith(".json")) return Checkpoint.fromTensors(name, unwrapped(await readFile(path)), open, states);

  const { shardOf, metadata } = readIndex(name, await folder.readText(path));
  const base = path.slice(0, path.lastIndexOf("/") + 1);
  const shards = new Map<string, string>(); // as the index names it → path in the folder
  for (const shard of new Set(shardOf.values())) shards.set(shard, base + pathInside(name, shard));

  const absent: string[] = [];
  for (const inside of shards.values()) if (!(await folder.exists(inside))) absent.push(inside);
  if (absent.length > 0) {
    throw new FemoError(
      "E_FILE",
      `${name}: ${absent.length} of its ${shards.size} files are not there. Download them too:${listSome(absent)}`,
    );
  }

  const tensors: TensorInfo[] = [];
  for (const [shard, inside] of shards) {
    const inShard = await readFile(inside);
    const found = new Set(inShard.map((tensor) => tensor.name));
    const missing = [...shardOf].filter(([tensor, file]) => file === shard && !found.has(tensor));
    if (missing.length > 0) {
      throw new FemoError(
        "E_WEIGHT",
        `${name}: ${missing.length} tensors should be in ${shard} and are not there. ` +
          `Download index and files again, all of the same version:${listSome(missing.map(([tensor]) => quote(tensor)))}`,
      );
    }
    tensors.push(...inShard);
  }
  tensors.push(...tiedTensors(tensors, metadata));
  return Checkpoint.fromTensors(name, unwrapped(tensors), open, states);
}

const stateOf = ({ fingerprint, blob }: ByteSource): FileState => ({
  ...(fingerprint !== undefined && { fingerprint }),
  ...(blob && { blob }),
});

interface ShardIndex {
  /** Tensor name → file name. */
  readonly shardOf: ReadonlyMap<string, string>;
  /** The free entries, such as `total_size`. */
  readonly metadata: Iterable<[string, unknown]>;
}

/** The index of a sharded checkpoint. */
function readIndex(name: string, text: string): ShardIndex {
  const advice = "Is it the index of weights? If so, download it again.";
  const index = parseJson(text, name, "E_FILE", advice);
  const { weight_map: map, metadata } = isObject(index) ? index : {};
  if (!isObject(map)) {
    throw new FemoError(
      "E_FILE",
      `${name}: expected an object "weight_map" of tensor and file names, found ${describeValue(map)}. ${advice}`,
    );
  }
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string" || !/\.(safetensors|bin)$/.test(file)) {
      throw new FemoError(
        "E_FILE",
        `${name}: tensor ${quote(tensor)}: expected the name of a .safetensors or .bin file, found ${describeValue(file)}. ${advice}`,
      );
    }
  }
  return {
    shardOf: new Map(Object.entries(map) as [string, string][]),
    metadata: isObject(metadata) ? Object.entries(metadata) : [],
  };
}
