import { FemoError } from "../errors.js";
import { blocksOf } from "./blocks.js";
import type { Look, Method, ModelFacts } from "./method.js";

/**
 * The first blocks run before every step. What they change is looked at, against the last full step; behind them the
 * middle is computed or forecast, and the last blocks run.
 * @param front at least 1
 * @throws FemoError E_OPTION if the model has no block between the two
 */
export function behindFront(
  model: ModelFacts,
  { front, back }: { front: number; back: number },
): Pick<Method, "cuts"> & { readonly look: Look } {
  const blocks = blocksOf(model);
  if (front + back >= blocks.count) {
    throw new FemoError(
      "E_OPTION",
      `cache: frontBlocks, backBlocks: expected fewer than the model's ${blocks.count} blocks in all, found ${front} and ${back}`,
    );
  }
  const from = blocks.before(front);
  const middle = blocks.across(front, blocks.count - back);
  return {
    cuts: { full: { from, capture: middle }, forecast: { from, forecast: middle } },
    look: {
      cut: { to: from, capture: blocks.across(0, front) },
      of: "captured",
      against: "last full",
      measure: "l1",
    },
  };
}
