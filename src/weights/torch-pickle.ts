import { FemoError } from "../errors.js";
import type { TensorDtype } from "./dtypes.js";
import {
  emptyDictionary,
  type PickleFail,
  PickleGlobal,
  PickleList,
  PickleObject,
  type PickleValue,
  plainGlobal,
  unpickle,
  unpickleAt,
} from "./pickle.js";

/** What holds the elements of one or several tensors: a file inside the zip, or a part of an old file. */
export class StorageRef extends PickleObject {
  readonly what = "a storage";
  constructor(
    /** Its name, in a zip that below `data/`. */
    readonly key: string,
    /** Undefined if only the tensors say it. */
    readonly dtype: TensorDtype | undefined,
    /** Elements, or bytes if it has no element type. */
    readonly size: number,
  ) {
    super();
  }
}

/** A tensor as the pickle describes it; whether its elements are there is not known yet. */
export class TensorRef extends PickleObject {
  readonly what = "a tensor";
  constructor(
    readonly storage: StorageRef,
    readonly dtype: TensorDtype,
    /** Elements from the start of the storage. */
    readonly offset: number,
    readonly shape: readonly number[],
    /** Elements from one index of an axis to the next. */
    readonly strides: readonly number[],
  ) {
    super();
  }
}

class StorageClass extends PickleGlobal {
  constructor(
    name: string,
    readonly dtype: TensorDtype | undefined,
  ) {
    super(name);
  }
}

class DtypeGlobal extends PickleGlobal {
  constructor(
    name: string,
    readonly dtype: TensorDtype,
  ) {
    super(name);
  }
}

/** PyTorch's own limit. */
const MAX_AXES = 64;

const STORAGES: Readonly<Record<string, TensorDtype | undefined>> = {
  "torch.FloatStorage": "float32",
  "torch.DoubleStorage": "float64",
  "torch.HalfStorage": "float16",
  "torch.BFloat16Storage": "bfloat16",
  "torch.LongStorage": "int64",
  "torch.IntStorage": "int32",
  "torch.ShortStorage": "int16",
  "torch.CharStorage": "int8",
  "torch.ByteStorage": "uint8",
  "torch.BoolStorage": "bool",
  "torch.ComplexFloatStorage": "complex64",
  "torch.storage.UntypedStorage": undefined,
};

/** Element types that are younger than the classes above; their storages are untyped. */
const DTYPES: Readonly<Record<string, TensorDtype>> = {
  "torch.uint16": "uint16",
  "torch.uint32": "uint32",
  "torch.uint64": "uint64",
  "torch.float8_e4m3fn": "float8_e4m3fn",
  "torch.float8_e5m2": "float8_e5m2",
  "torch.float8_e4m3fnuz": "float8_e4m3fnuz",
  "torch.float8_e5m2fnuz": "float8_e5m2fnuz",
  "torch.float8_e8m0fnu": "float8_e8m0",
};

/** A dictionary in the order of its items, which Python 2 gives all at once, as lists of two. */
function orderedDictionary(args: readonly PickleValue[], fail: PickleFail): PickleValue {
  const [list] = args;
  if (args.length === 0) return emptyDictionary();
  const pairs = list instanceof PickleList ? list.items : fail("expected an ordered dictionary of pairs, or empty");
  return new Map(
    pairs.map((pair): [PickleValue, PickleValue] => {
      const [key, value, ...more] = pair instanceof PickleList ? pair.items : [];
      if (key === undefined || value === undefined || more.length > 0) fail("expected pairs of an ordered dictionary");
      return [key as PickleValue, value as PickleValue];
    }),
  );
}

/** (storage, offset, shape, strides, requires_grad, hooks, [dtype,] [metadata]) */
function rebuildTensor(args: readonly PickleValue[], typed: boolean, fail: PickleFail): TensorRef {
  const [storage, offset, shape, strides] = args;
  const dtypeOf = typed ? undefined : args[6];
  const metadata = args[typed ? 6 : 7] ?? null;
  if (!(storage instanceof StorageRef)) return fail("expected the storage of a tensor");
  const dtype = dtypeOf instanceof DtypeGlobal ? dtypeOf.dtype : storage.dtype;
  if (dtype === undefined) return fail("expected the element type of a tensor");
  if (!isSize(offset)) return fail("expected the offset of a tensor in its storage");
  if (!isSizes(shape) || !isSizes(strides) || shape.length !== strides.length || shape.length > MAX_AXES) {
    return fail(`expected the shape and the strides of a tensor, whole numbers for at most ${MAX_AXES} axes`);
  }
  if (metadata !== null && !(metadata instanceof Map && metadata.size === 0)) {
    fail("a tensor whose elements are to be read as conjugated or negated");
  }
  return new TensorRef(storage, dtype, offset, shape, strides);
}

const globals: ReadonlyMap<string, PickleGlobal> = new Map(
  [
    ...Object.entries(STORAGES).map(([name, dtype]) => new StorageClass(name, dtype)),
    ...Object.entries(DTYPES).map(([name, dtype]) => new DtypeGlobal(name, dtype)),
    // Before PyTorch 0.4.
    new PickleGlobal("torch._utils._rebuild_tensor", (args, fail) => rebuildTensor(args.slice(0, 4), true, fail)),
    new PickleGlobal("torch._utils._rebuild_tensor_v2", (args, fail) => rebuildTensor(args, true, fail)),
    new PickleGlobal("torch._utils._rebuild_tensor_v3", (args, fail) => rebuildTensor(args, false, fail)),
    new PickleGlobal("torch._utils._rebuild_parameter", ([tensor], fail) =>
      tensor instanceof TensorRef ? tensor : fail("expected the tensor of a parameter"),
    ),
    new PickleGlobal("torch.Size", ([shape], fail) => (isSizes(shape) ? shape : fail("expected the items of a size"))),
    new PickleGlobal("collections.OrderedDict", orderedDictionary),
    // Training scripts, the original DiT's among them, save their arguments beside the weights.
    plainGlobal("argparse.Namespace"),
    // PyTorch Lightning, which saved the first Stable Diffusions, keeps the best loss and the class that watched it.
    new PickleGlobal("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    ...["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"].map(plainGlobal),
    plainGlobal("_codecs.encode"),
  ].map((global) => [global.name, global]),
);

/** ("storage", class, key, device, size), and of old files a part of another storage, which PyTorch has never written */
function storageOf(id: PickleValue, fail: PickleFail): StorageRef {
  const [kind, type, key, , size, part = null] = Array.isArray(id) ? (id as readonly PickleValue[]) : [];
  if (part !== null) return fail("expected a storage that is no part of another");
  if (kind !== "storage" || !(type instanceof StorageClass) || typeof key !== "string" || !isSize(size)) {
    return fail("expected the class, name and size of a storage");
  }
  return new StorageRef(key, type.dtype, size);
}

/**
 * What `torch.save` wrote as `data.pkl`.
 * @param name of the file, for messages
 * @throws FemoError E_FILE as `unpickle`: other objects than tensors in containers are refused, and nothing is executed
 */
export function unpickleTensors(bytes: Uint8Array, name: string): PickleValue {
  return unpickle(bytes, name, { globals, persistent: storageOf });
}

const isSize = (value: unknown): value is number =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0);
const isSizes = (value: unknown): value is readonly number[] => Array.isArray(value) && value.every(isSize);

/** What the part of an old file says that is before the elements. */
export interface OldContents {
  readonly contents: PickleValue;
  /** In the order in which their elements follow. */
  readonly storages: readonly StorageRef[];
  /** Where the elements begin. */
  readonly end: number;
}

const OLD_MAGIC = 0x1950a86a20f9469cfc6cn;
const OLD_PROTOCOL = 1001;

/** True for the first bytes of what `torch.save` wrote before PyTorch 1.6: the pickle of a number. */
export const startsAsOldTorch = (start: Uint8Array): boolean =>
  [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46].every((byte, i) => start[i] === byte);

/**
 * The pickles in a row with which such a file begins: a number, the version, the writer's system, the contents, and the
 * names of the storages.
 * @param name of the file, for messages
 * @throws FemoError E_FILE as `unpickleTensors`, and if they are not these
 */
export function unpickleOldTensors(bytes: Uint8Array, name: string): OldContents {
  const byKey = new Map<string, StorageRef>();
  let at = 0;
  const next = (): PickleValue => {
    const { value, end } = unpickleAt(bytes, at, name, {
      globals,
      persistent(id, fail) {
        const storage = storageOf(id, fail);
        const known = byKey.get(storage.key);
        if (known && (known.dtype !== storage.dtype || known.size !== storage.size)) {
          return fail("a storage of two kinds or sizes");
        }
        if (!known) byKey.set(storage.key, storage);
        return known ?? storage;
      },
    });
    at = end;
    return value;
  };
  const fail = (problem: string): never => {
    throw new FemoError("E_FILE", `${name}: ${problem}. Is it a file of torch.save? If so, download it again.`);
  };
  if (next() !== OLD_MAGIC) fail("it does not begin with the number of PyTorch's old format");
  const version = next();
  if (version !== OLD_PROTOCOL) fail(`expected version ${OLD_PROTOCOL} of PyTorch's old format, found another`);
  const system = next();
  if (!(system instanceof Map) || system.get("little_endian") !== true) fail("expected little-endian numbers");
  const contents = next();
  const keys = next();
  const storages = (keys instanceof PickleList ? keys.items : fail("expected the names of the storages")).map(
    (key) => byKey.get(String(key)) ?? fail("it has a storage that none of its tensors names"),
  );
  if (new Set(storages).size !== storages.length) fail("it has a storage twice");
  return { contents, storages, end: at };
}
