import type { Sparse } from "./sparse.js";

/** Between two blocks of a chain: before block `block`, counted from 0; behind the last if it is their number. */
export interface Place {
  readonly chain: string;
  readonly block: number;
}

/** Some blocks of a chain, first to last, the last not included. */
export interface Span {
  readonly chain: string;
  readonly blocks: readonly [number, number];
}

/** A choice of features: a level of the model, or what some blocks have of it, the change across some blocks, some by name, or all of several choices. */
export type Region =
  | { readonly level: string; readonly within?: Span }
  | Span
  | { readonly sites: readonly string[] }
  | { readonly any: readonly Region[] };

/** What the elements of kept features are. */
export const stateDtypes = ["float32", "float16"] as const;
export type StateDtype = (typeof stateDtypes)[number];

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
  /** In what features are given out and taken; what is computed of them is float32. Default: that too. */
  readonly stateDtype?: StateDtype;
  /**
   * Features that replace the newest of those that are kept: of these, chosen tokens are computed, from the current x, in
   * place of those kept. Of a region those count that the model computes token by token (`Site.tokenwise`). It goes before
   * `forecast`.
   */
  readonly tokens?: Region;
  /** Of squares of so many tokens on either side the best one is more likely to be chosen (`chooseTokens`). */
  readonly cell?: number;
  /** Features that replace the newest of those that are kept, all of their tokens computed. It goes before `tokens`. */
  readonly renew?: Region;
  /** What is computed leaves behind how much attention each token got and that it is new: by that tokens are chosen. */
  readonly scores?: boolean;
  /** Marks given out. */
  readonly give?: readonly string[];
  /** The model's output is not given out: a look at what is given and captured, and no more is computed than that takes. */
  readonly aside?: boolean;
  /** MLPs and attention keep what they gave, or correct what was kept, instead of computing it whole. */
  readonly sparse?: Sparse;
  /** On the way the chain's streams are given out there, so that a later step may begin with them. */
  readonly pass?: Place;
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
export const spanName = ({ chain, blocks: [first, end] }: Span): string =>
  end === first + 1 ? `${chain}.${first}` : `${chain}.${first}-${end - 1}`;

/** What a choice is made of, none of it several in one. */
export function partsOf(region: Region): Exclude<Region, { readonly any: readonly Region[] }>[] {
  return "any" in region ? region.any.flatMap(partsOf) : [region];
}

/** Everything is computed: what it gives is the truth, up to rounding. */
export const computesAll = ({ forecast, tokens, sparse }: Cut): boolean =>
  forecast === undefined && tokens === undefined && sparse?.step !== "correct";
