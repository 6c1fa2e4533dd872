import { FemoError } from "../errors.js";

/**
 * One axis of a tensor: a number, or a symbol bound at run time. Symbols may carry a whole factor (`"256*batch"`) or
 * an offset (`"rows+1"`), which is all that flattening and stacking need.
 */
export type Dim = number | string;
export type Shape = readonly Dim[];

/** What the symbols of a graph stand for, e.g. `{ batch: 2 }`. */
export type Bindings = Readonly<Record<string, number>>;

interface Size {
  factor: number;
  /** Symbols of the product, sorted. */
  symbols: string[];
}

/** The number of elements of a shape, as factor times symbols. */
export function sizeOf(shape: Shape): Size {
  let factor = 1;
  const symbols: string[] = [];
  for (const dim of shape) {
    for (const part of typeof dim === "number" ? [dim] : dim.split("*")) {
      if (typeof part === "number" || /^\d+$/.test(part)) factor *= Number(part);
      else symbols.push(part);
    }
  }
  return { factor, symbols: symbols.sort() };
}

/** The product of dimensions as one dimension: `productDim(["batch", 256])` is `"256*batch"`. */
export function productDim(dims: Shape): Dim {
  const { factor, symbols } = sizeOf(dims);
  if (symbols.length === 0) return factor;
  return (factor === 1 ? symbols : [String(factor), ...symbols]).join("*");
}

/** The sum of two dimensions: `addDims("rows", 1)` is `"rows+1"`. */
export function addDims(a: Dim, b: Dim): Dim {
  return typeof a === "number" && typeof b === "number" ? a + b : `${a}+${b}`;
}

/** True if both shapes hold the same number of elements whatever the symbols stand for. */
export function sameSize(a: Shape, b: Shape): boolean {
  const [x, y] = [sizeOf(a), sizeOf(b)];
  return x.factor === y.factor && x.symbols.join() === y.symbols.join();
}

/**
 * A dimension as a number.
 * @throws FemoError E_GRAPH if a symbol is not bound
 */
export function bindDim(dim: Dim, bindings: Bindings): number {
  if (typeof dim === "number") return dim;
  const term = (part: string): number => {
    if (/^\d+$/.test(part)) return Number(part);
    const value = bindings[part];
    if (value === undefined) {
      throw new FemoError(
        "E_GRAPH",
        `dimension "${part}" has no value; bound are: ${Object.keys(bindings).join(", ")}`,
      );
    }
    return value;
  };
  return dim
    .split("+")
    .map((sum) =>
      sum
        .split("*")
        .map(term)
        .reduce((a, b) => a * b, 1),
    )
    .reduce((a, b) => a + b, 0);
}

export const bindShape = (shape: Shape, bindings: Bindings): number[] => shape.map((dim) => bindDim(dim, bindings));

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
