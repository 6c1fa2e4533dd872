import { FemoError } from "../errors.js";
import type { Place, Region, Span } from "../tracing/index.js";
import type { ModelFacts } from "./method.js";

/** The blocks of a model as one list over all its chains, in their order, counted from 0. */
export interface Blocks {
  readonly count: number;
  /** The chain that has the first of them. */
  readonly firstChain: string;
  /** The place before a block; behind the last one for their number. */
  before(block: number): Place;
  /** The change across blocks `first` to `end`, the last not included: one for each chain that has some of them. */
  across(first: number, end: number): Region;
}

/** @throws FemoError E_OPTION if the model has none, as U-Nets, whose layers are joined by skips */
export function blocksOf({ chains }: Pick<ModelFacts, "chains">): Blocks {
  const spans: { readonly chain: string; readonly start: number; readonly length: number }[] = [];
  let count = 0;
  for (const [chain, length] of Object.entries(chains)) {
    if (length > 0) spans.push({ chain, start: count, length });
    count += length;
  }
  if (count === 0) {
    throw new FemoError(
      "E_OPTION",
      "cache: the method divides a model between blocks in a row: expected a model that has some, found none, as of a U-Net, " +
        'whose layers are joined by skips. Use one that keeps features at a level, such as "femo", or "deepCache".',
    );
  }
  return {
    count,
    firstChain: spans[0]?.chain ?? "",
    before(block) {
      const { chain, start } = spans.findLast((span) => span.start <= block) as (typeof spans)[number];
      return { chain, block: block - start };
    },
    across(first, end) {
      const parts = spans.flatMap(({ chain, start, length }): Span[] => {
        const blocks = [Math.max(first - start, 0), Math.min(end - start, length)] as const;
        return blocks[0] < blocks[1] ? [{ chain, blocks }] : [];
      });
      return parts.length === 1 ? (parts[0] as Span) : { any: parts };
    },
  };
}
