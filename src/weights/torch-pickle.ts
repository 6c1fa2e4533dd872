import type { TensorDtype } from "./dtypes.js";
import {
  emptyDictionary,
  type PickleFail,
  PickleGlobal,
  PickleObject,
  type PickleValue,
  plainGlobal,
  unpickle,
} from "./pickle.js";

/** A file inside the zip that holds the elements of one or several tensors. */
export class StorageRef extends PickleObject {
  readonly what = "a storage";
  constructor(
    /** Its name below `data/`. */
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
    new PickleGlobal("torch._utils._rebuild_tensor_v2", (args, fail) => rebuildTensor(args, true, fail)),
    new PickleGlobal("torch._utils._rebuild_tensor_v3", (args, fail) => rebuildTensor(args, false, fail)),
    new PickleGlobal("torch._utils._rebuild_parameter", ([tensor], fail) =>
      tensor instanceof TensorRef ? tensor : fail("expected the tensor of a parameter"),
    ),
    new PickleGlobal("torch.Size", ([shape], fail) => (isSizes(shape) ? shape : fail("expected the items of a size"))),
    new PickleGlobal("collections.OrderedDict", (args, fail) =>
      args.length === 0 ? emptyDictionary() : fail("expected an ordered dictionary without arguments"),
    ),
    // Training scripts, the original DiT's among them, save their arguments beside the weights.
    plainGlobal("argparse.Namespace"),
    // PyTorch Lightning, which saved the first Stable Diffusions, keeps the best loss and the class that watched it.
    new PickleGlobal("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    ...["numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"].map(plainGlobal),
    plainGlobal("_codecs.encode"),
  ].map((global) => [global.name, global]),
);

/** ("storage", class, key, device, size) */
function storageOf(id: PickleValue, fail: PickleFail): StorageRef {
  const [kind, type, key, , size] = Array.isArray(id) ? (id as readonly PickleValue[]) : [];
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
