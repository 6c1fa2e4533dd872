import { FemoError } from "../errors.js";

/**
 * One axis of a tensor: a number, or whole-numbered arithmetic on symbols that are bound when the graph runs, written as
 * a sum of products (`"256*batch"`, `"rows+1"`, `"columns*rows+text"`). A symbol that ends in "?" may stand for 0;
 * `"height/4"` is a quarter of another symbol, rounded up.
 */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** What the symbols of a graph stand for, e.g. `{ batch: 2 }`. */
export type Bindings = Readonly<Record<string, number>>;

/** Factors by product of symbols, the symbols sorted; "" is the constant. */
type Polynomial = ReadonlyMap<string, number>;

const SUM = "+";
const PRODUCT = "*";

function parse(dim: Dim): Polynomial {
  if (typeof dim === "number") return new Map([["", dim]]);
  return collect(
    dim.split(SUM).map((term) => {
      const parts = term.split(PRODUCT);
      const factor = parts.filter(isNumber).reduce((a, b) => a * Number(b), 1);
      return [parts.filter((part) => !isNumber(part)), factor];
    }),
  );
}

const isNumber = (part: string): boolean => /^\d+$/.test(part);

function collect(terms: readonly (readonly [symbols: readonly string[], factor: number])[]): Polynomial {
  const sum = new Map<string, number>();
  for (const [symbols, factor] of terms) {
    const key = symbols.toSorted().join(PRODUCT);
    sum.set(key, (sum.get(key) ?? 0) + factor);
  }
  return sum;
}

function format(polynomial: Polynomial): Dim {
  const constant = polynomial.get("") ?? 0;
  const terms = [...polynomial]
    .filter(([key, factor]) => key !== "" && factor !== 0)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  if (terms.length === 0) return constant;
  const texts = terms.map(([key, factor]) => (factor === 1 ? key : `${factor}${PRODUCT}${key}`));
  return (constant === 0 ? texts : [...texts, String(constant)]).join(SUM);
}

/** The product of dimensions as one dimension: `productDim(["batch", 256])` is `"256*batch"`. */
export function productDim(dims: Shape): Dim {
  let terms: [symbols: string[], factor: number][] = [[[], 1]];
  for (const dim of dims) {
    const factors = [...parse(dim)];
    terms = terms.flatMap(([symbols, x]) =>
      factors.map(([key, y]): [string[], number] => [symbols.concat(key === "" ? [] : key.split(PRODUCT)), x * y]),
    );
  }
  return format(collect(terms));
}

/** The sum of dimensions: `addDims("rows", 1)` is `"rows+1"`. */
export function addDims(a: Dim, b: Dim): Dim {
  const terms = [a, b].flatMap((dim) => [...parse(dim)]);
  return format(collect(terms.map(([key, factor]) => [key === "" ? [] : key.split(PRODUCT), factor])));
}

/** True if a dimension divides by a whole number whatever its symbols stand for. */
export const isMultiple = (dim: Dim, of: number): boolean => [...parse(dim)].every(([, factor]) => factor % of === 0);

const FRACTION = /^(.+)\/(\d+)$/;

/**
 * A dimension over a whole number, rounded up: of 5 a half is 3, and of `"height/2"` it is `"height/4"`.
 * @throws FemoError E_GRAPH if it is neither a number, nor a symbol, nor divisible
 */
export function divideDim(dim: Dim, by: number): Dim {
  if (typeof dim === "number") return Math.ceil(dim / by);
  if (isMultiple(dim, by)) return format(new Map([...parse(dim)].map(([key, factor]) => [key, factor / by])));
  if (dim.includes(SUM) || dim.includes(PRODUCT)) {
    throw new FemoError("E_GRAPH", `dimension "${dim}" does not divide by ${by}`);
  }
  const [, of = dim, part = 1] = FRACTION.exec(dim) ?? [];
  return `${of}/${Number(part) * by}`;
}

/** True if an axis may have no elements. */
export const mayBeEmpty = (dim: Dim): boolean => typeof dim === "string" && dim.includes("?");

/** True if both shapes hold the same number of elements whatever the symbols stand for. */
export const sameSize = (a: Shape, b: Shape): boolean => productDim(a) === productDim(b);

/**
 * A dimension as a number.
 * @throws FemoError E_GRAPH if a symbol is not bound
 */
export function bindDim(dim: Dim, bindings: Bindings): number {
  if (typeof dim === "number") return dim;
  const boundTo = (symbol: string): number => {
    const value = bindings[symbol];
    const [, of, part] = (value === undefined && FRACTION.exec(symbol)) || [];
    if (of !== undefined) return Math.ceil(boundTo(of) / Number(part));
    if (value === undefined) {
      throw new FemoError(
        "E_GRAPH",
        `dimension "${symbol}" has no value; bound are: ${Object.keys(bindings).join(", ")}`,
      );
    }
    return value;
  };
  let sum = 0;
  for (const [key, factor] of parse(dim)) {
    sum += key === "" ? factor : key.split(PRODUCT).reduce((product, symbol) => product * boundTo(symbol), factor);
  }
  return sum;
}

export const bindShape = (shape: Shape, bindings: Bindings): number[] => shape.map((dim) => bindDim(dim, bindings));

/** How many elements a tensor has. */
export const sizeOf = (dims: readonly number[]): number => dims.reduce((a, b) => a * b, 1);

export const formatShape = (shape: Shape): string => `[${shape.join(", ")}]`;

/** NumPy broadcasting. @throws FemoError E_GRAPH if the shapes do not fit */
export function broadcast(a: Shape, b: Shape, op: string): Dim[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[i - rank + a.length] ?? 1;
    const y = b[i - rank + b.length] ?? 1;
    if (x === y || y === 1) return x;
    if (x === 1) return y;
    throw new FemoError(
      "E_GRAPH",
      `${op}: ${formatShape(a)} and ${formatShape(b)} do not broadcast at axis ${i}: ${x} and ${y}`,
    );
  });
}
