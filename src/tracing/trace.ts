import type { Dim, Graph, Shape, Value } from "../graph/index.js";

/** Leading axis of every activation: the samples of a batch, guidance rows included. */
export const BATCH = "batch";
/** Rows of the tables: distinct (timestep, condition) pairs, and distinct conditions. */
export const PAIRS = "pairs";
export const CONDITIONS = "conditions";

/** A cacheable tensor as a model names it. */
export interface Site {
  readonly level: string;
  readonly name: string;
  /** With the batch in front. Default: that of what it is computed from. */
  readonly shape?: Shape;
  /** Kept is the change, computed minus what it is computed from. */
  readonly residual?: boolean;
  /** It is computed token by token, [B, T, D] to [B, T, D']. */
  readonly tokenwise?: Tokenwise;
}

/** What is known of the tokens of a feature that is computed token by token: by it some of them may be chosen. */
export interface Tokenwise {
  /** The attention that they go through, by name: a token to which much attention is paid matters much. */
  readonly attention: string;
  /** How many tokens go through it. */
  readonly attended: Dim;
  /** Those of them that are the feature's, [B, attended] to [B, T]. Default: all. */
  readonly part?: (attended: Value) => Value;
  /** Tokens that lie on a grid, row by row. */
  readonly grid?: readonly [rows: number, columns: number];
}

/** Tensors that run side by side through the blocks of a chain. */
export type Streams = Readonly<Record<string, Value>>;

/**
 * What a model is written against. It names its parts; the tracer decides what a name means, so that one model function
 * gives every graph that a cut can ask for.
 */
export interface Trace {
  readonly graph: Graph;
  /** An input that the model declares, with the batch in front unless it varies with the size alone. */
  input(name: string): Value;
  /** A tensor of the checkpoint. */
  weight(name: string, shape: readonly number[]): Value;
  /** A part that depends on timestep and condition ("pair") or on the condition alone: computed once, before the first step. */
  hoist(varies: "pair" | "condition", name: string, shape: Shape, compute: () => Value): Value;
  /** A cacheable tensor; `compute` is given x, or part of it. */
  feature(site: Site, x: Value, compute: (x: Value) => Value): Value;
  /**
   * The blocks of a network, one after the other. Each is a site of the level "block" for the change of each stream; the
   * tracer may begin and end between any two.
   */
  chain<S extends Streams>(name: string, streams: S, blocks: readonly ((streams: S) => S)[]): S;
  /** A tensor that may be given out. */
  mark(name: string, value: Value): Value;
  /** Softmax attention of queries [B, T, D] over keys and values [B, S, D], in `heads` parts of D. */
  attention(name: string, queries: Value, keys: Value, values: Value, heads: number): Value;
  /** Two linear layers, wide in the middle, of [B, T, D]. */
  mlp(name: string, x: Value, layers: MlpLayers): Value;
}

/** y = act(x W1^T + b1) W2^T + b2. */
export interface MlpLayers {
  /** W1, [wide, D], and b1, [wide]. */
  readonly widen: readonly [weight: Value, bias: Value];
  readonly activate: (hidden: Value) => Value;
  /** W2, [D', wide], and b2, [D']. */
  readonly narrow: readonly [weight: Value, bias: Value];
}

/** All of it, as it stands. */
export const computeMlp = (x: Value, { widen, activate, narrow }: MlpLayers): Value =>
  activate(x.linear(...widen)).linear(...narrow);

/** A computation that several names share: made by the first that asks, or by none. */
export function once<T extends object>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}
