/** Between two blocks of a chain: before block `block`, counted from 0; behind the last if it is their number. */
export interface Place {
  readonly chain: string;
  readonly block: number;
}

/** A choice of features: a level of the model, the change across some blocks of a chain (first to last, the last not included), or some by name. */
export type Region =
  | { readonly level: string }
  | { readonly chain: string; readonly blocks: readonly [number, number] }
  | { readonly sites: readonly string[] };

/** How many tensors are kept of each feature: its last ones, and running averages (`Forecaster`). */
export interface StateShape {
  readonly history: number;
  readonly averages: number;
}

/**
 * Which graph of a model to build. What does not lead to an output is not part of a graph, so everything that a cut
 * leaves out costs nothing. Without any field it is one plain step.
 */
export interface Cut {
  /** Begin there: the chain's streams are inputs, named by place and stream (`graphNames.stream`). */
  readonly from?: Place;
  /** End there: the chain's streams are outputs, and the model's output is not. */
  readonly to?: Place;
  /** Features given out. */
  readonly capture?: Region;
  /** Features forecast, F^ = c S, instead of computed. */
  readonly forecast?: Region;
  /** Of the forecast features. */
  readonly state?: StateShape;
  /** Marks given out. */
  readonly give?: readonly string[];
  /**
   * What becomes of the parts that do not change from step to step. Default: they are read from tables. "pair",
   * "condition": those that vary with (timestep, condition) or with the condition alone are given out, nothing else is.
   * "inline": computed in place.
   */
  readonly hoisted?: "pair" | "condition" | "inline";
}

/** The same text for the same data, whatever the order of its fields: the key of what a cut, a region or a kernel describes. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return `{${fields
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, field]) => `${name}:${canonical(field)}`)
    .join(",")}}`;
}

/** The name of a run of blocks, the last not included. */
export const spanName = ({
  chain,
  blocks: [first, end],
}: {
  chain: string;
  blocks: readonly [number, number];
}): string => (end === first + 1 ? `${chain}.${first}` : `${chain}.${first}-${end - 1}`);

/** Everything is computed: what it gives is the truth, up to rounding. */
export const computesAll = ({ forecast }: Cut): boolean => forecast === undefined;
