import { FemoError } from "../errors.js";
import type { TensorDtype } from "./dtypes.js";
import type { CheckpointTensor } from "./tensors.js";
import { formatDims, listSome, quote } from "./text.js";

/** A tensor that a model needs. */
export interface ExpectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** Unless told, one of those that a graph computes with: floating-point numbers of 8 to 64 bits. */
  readonly dtype?: TensorDtype;
}

/** Element types that a graph computes with. */
export const COMPUTABLE: readonly TensorDtype[] = [
  ...(["float32", "float16", "bfloat16", "float64"] as const),
  ...(["float8_e4m3fn", "float8_e5m2"] as const),
];

/** How strict `Checkpoint.verify` is. */
export interface VerifyOptions {
  /** Names of stored tensors that nobody needs to take, such as position tables that are computed instead. */
  readonly ignore?: (name: string) => boolean;
  /** Types that will do, of tensors that name none. Default: those that a graph computes with. */
  readonly dtypes?: readonly TensorDtype[];
}

interface Misshapen {
  readonly name: string;
  readonly expected: readonly number[];
  readonly found: readonly number[];
}

/**
 * Compares what a model needs with what is stored, all at once.
 * @throws FemoError E_WEIGHT that lists missing, misshapen and surplus tensors and those of another type, the first ten of
 *   each, with the shapes
 */
export function verifyTensors(
  file: string,
  stored: ReadonlyMap<string, CheckpointTensor>,
  expected: Iterable<ExpectedTensor>,
  options: VerifyOptions = {},
): void {
  const { dtypes = COMPUTABLE } = options;
  const needed = new Map(Array.from(expected, (tensor) => [tensor.name, tensor]));
  const missing: string[] = [];
  const misshapen: Misshapen[] = [];
  const mistyped: string[] = [];
  for (const { name, shape, dtype } of needed.values()) {
    const found = stored.get(name);
    if (!found) missing.push(name);
    else if (found.shape.length !== shape.length || found.shape.some((dim, i) => dim !== shape[i])) {
      misshapen.push({ name, expected: shape, found: found.shape });
    } else if (!(dtype === undefined ? dtypes : [dtype]).includes(found.dtype)) {
      mistyped.push(`${quote(name)}: expected ${dtype ?? dtypes.join(", ")}, found ${found.dtype}`);
    }
  }
  const surplus = [...stored.keys()].filter((name) => !needed.has(name) && !options.ignore?.(name));
  if (missing.length + misshapen.length + surplus.length === 0) {
    if (mistyped.length === 0) return;
    throw new FemoError(
      "E_WEIGHT",
      `${file}: the model cannot compute with its weights as they are stored.` +
        `${section("of another type", mistyped, (line) => line)}\nConvert them, in Python: tensor.float(). Of weights that ` +
        "a tool has quantised take the originals.",
    );
  }

  const parts = [
    section("missing", missing, (name) => `${quote(name)} ${formatDims(needed.get(name)?.shape ?? [])}`),
    section("of another shape", misshapen, (tensor) => {
      return `${quote(tensor.name)}: expected ${formatDims(tensor.expected)}, found ${formatDims(tensor.found)}`;
    }),
    section("that the model does not have", surplus, (name) => {
      return `${quote(name)} ${formatDims(stored.get(name)?.shape ?? [])}`;
    }),
  ];
  const advice =
    hint(missing, misshapen, surplus, needed, stored) ??
    "Are the weights those of this model, and is the config the one that came with them?";
  throw new FemoError(
    "E_WEIGHT",
    `${file}: the tensors are not those of the model (expected ${needed.size}, found ${stored.size}).${parts.join("")}\n${advice}`,
  );
}

function section<T>(what: string, items: readonly T[], describe: (item: T) => string): string {
  if (items.length === 0) return "";
  const noun = items.length === 1 ? "tensor" : "tensors";
  return `\n  ${items.length} ${noun} ${what}:${listSome(items.map(describe))}`;
}

/** What the difference looks like, if it looks like something. */
function hint(
  missing: readonly string[],
  misshapen: readonly Misshapen[],
  surplus: readonly string[],
  needed: ReadonlyMap<string, unknown>,
  stored: ReadonlyMap<string, unknown>,
): string | undefined {
  const first = missing[0];
  const alike = first === undefined ? undefined : surplus.find((name) => name.endsWith(`.${first}`));
  if (first !== undefined && alike !== undefined) {
    const prefix = alike.slice(0, -first.length);
    if (missing.every((name) => stored.has(prefix + name))) {
      return `The names in the file start with ${quote(prefix)}: it was saved as a part of something larger.`;
    }
  }
  if (surplus.length + misshapen.length === 0 && missing.length < needed.size) {
    return areLayersBeyond(missing, stored)
      ? "The file looks like the same kind of model with fewer layers: use the config that came with it."
      : "All that is there is right: the rest was left out when the file was saved. Save all of the model, or download it again.";
  }
  if (missing.length + misshapen.length === 0 && areLayersBeyond(surplus, needed)) {
    return "The file looks like the same kind of model with more layers: use the config that came with it.";
  }
  const size = missing.length === 0 ? smallestDifference(misshapen) : undefined;
  if (size !== undefined) {
    return `The file looks like the same kind of model in another size (${size}): use the config that came with it.`;
  }
  return undefined;
}

/**
 * True if all names are of layers after the last that is known, such as `blocks.3`, and each has a twin in a layer before,
 * as `blocks.3.weight` has in `blocks.2.weight`.
 */
function areLayersBeyond(names: readonly string[], known: ReadonlyMap<string, unknown>): boolean {
  const last = new Map<string, number>();
  for (const { list, number } of [...known.keys()].flatMap(places))
    last.set(list, Math.max(number, last.get(list) ?? 0));
  const isBeyond = ({ list, number, rest }: ReturnType<typeof places>[number]): boolean => {
    const before = Math.min(last.get(list) ?? -1, MAX_LAYERS);
    return (
      number > before && Array.from({ length: before + 1 }, (_, i) => list + i + rest).some((twin) => known.has(twin))
    );
  };
  return names.every((name) => places(name).some(isBeyond));
}

const MAX_LAYERS = 1000;

/** Every place of a name at which there is a number: `a.1.b.2.c` is in layer 1 of `a.` and in layer 2 of `a.1.b.` */
const places = (name: string) =>
  [...name.matchAll(/(?<=^|\.)\d{1,9}(?=\.)/g)].map(({ index, 0: digits }) => ({
    list: name.slice(0, index),
    number: Number(digits),
    rest: name.slice(index + digits.length),
  }));

/** The smallest size that differs: the width of a model rather than its multiples. */
function smallestDifference(misshapen: readonly Misshapen[]): string | undefined {
  let smallest: readonly [expected: number, found: number] | undefined;
  for (const { expected, found } of misshapen) {
    if (expected.length !== found.length) continue;
    for (const [i, dim] of expected.entries()) {
      const other = found[i] ?? dim;
      if (other !== dim && (!smallest || dim < smallest[0])) smallest = [dim, other];
    }
  }
  return smallest && `${smallest[1]} where the config says ${smallest[0]}`;
}
