import { FemoError } from "../errors.js";
import { formatDims, listSome, quote } from "./text.js";

/** A tensor that a model needs. */
export interface ExpectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
}

/** How strict `Checkpoint.verify` is. */
export interface VerifyOptions {
  /** Names of stored tensors that nobody needs to take, such as position tables that are computed instead. */
  readonly ignore?: (name: string) => boolean;
}

interface Misshapen {
  readonly name: string;
  readonly expected: readonly number[];
  readonly found: readonly number[];
}

/**
 * Compares what a model needs with what is stored, all at once.
 * @throws FemoError E_WEIGHT that lists missing, misshapen and surplus tensors, the first ten of each, with the shapes
 */
export function verifyTensors(
  file: string,
  stored: ReadonlyMap<string, { readonly shape: readonly number[] }>,
  expected: Iterable<ExpectedTensor>,
  options: VerifyOptions = {},
): void {
  const needed = new Map<string, readonly number[]>();
  for (const { name, shape } of expected) needed.set(name, shape);

  const missing: string[] = [];
  const misshapen: Misshapen[] = [];
  for (const [name, shape] of needed) {
    const found = stored.get(name)?.shape;
    if (!found) missing.push(name);
    else if (found.length !== shape.length || found.some((dim, i) => dim !== shape[i])) {
      misshapen.push({ name, expected: shape, found });
    }
  }
  const surplus = [...stored.keys()].filter((name) => !needed.has(name) && !options.ignore?.(name));
  if (missing.length + misshapen.length + surplus.length === 0) return;

  const parts = [
    section("missing", missing, (name) => `${quote(name)} ${formatDims(needed.get(name) ?? [])}`),
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
  if (surplus.length === 0 && misshapen.length === 0 && onlyNumbersDiffer(missing, stored)) {
    return "The file looks like the same kind of model with fewer layers: use the config that came with it.";
  }
  if (missing.length === 0 && misshapen.length === 0 && onlyNumbersDiffer(surplus, needed)) {
    return "The file looks like the same kind of model with more layers: use the config that came with it.";
  }
  const size = missing.length === 0 ? smallestDifference(misshapen) : undefined;
  if (size !== undefined) {
    return `The file looks like the same kind of model in another size (${size}): use the config that came with it.`;
  }
  return undefined;
}

/** True if every name is that of a known tensor but for its numbers, as `blocks.12.weight` and `blocks.3.weight`. */
function onlyNumbersDiffer(names: readonly string[], known: ReadonlyMap<string, unknown>): boolean {
  const pattern = (name: string) => name.replace(/\d+/g, "#");
  const patterns = new Set([...known.keys()].map(pattern));
  return names.length > 0 && names.every((name) => patterns.has(pattern(name)));
}

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
