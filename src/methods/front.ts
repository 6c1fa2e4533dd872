import { FemoError } from "../errors.js";
import { blocksOf } from "./blocks.js";
import type { Look, Method, ModelFacts } from "./method.js";
import { keptAt } from "./scheduled.js";

/** What the first residual block of a U-Net changes, and the state that is kept behind it. */
const FIRST = { mark: "first block", level: "deep.1" } as const;

/**
 * The first blocks run before every step. What they change is looked at, against the last full step; behind them the
 * middle is computed or forecast, and the last blocks run.
 *
 * A U-Net, whose layers are joined by skips, is divided behind its first residual block only: what lies deeper is DeepCache's hidden
 * state, and the last two layers, which take the skips before it, run in every step.
 * @param front at least 1
 * @throws FemoError E_OPTION if the model has no block between the two, or cannot be divided there
 */
export function behindFront(
  model: ModelFacts,
  { front, back }: { front: number; back: number },
): Pick<Method, "cuts"> & { readonly look: Look } {
  if (model.marks.includes(FIRST.mark)) return behindFirst(front, back);
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

function behindFirst(front: number, back: number): Pick<Method, "cuts"> & { readonly look: Look } {
  if (front !== 1 || back !== 0) {
    throw new FemoError(
      "E_OPTION",
      `cache: frontBlocks, backBlocks: expected 1 and 0 of a U-Net, whose last layers go with the first ones, found ${front} and ${back}`,
    );
  }
  return {
    cuts: keptAt(FIRST.level),
    look: { cut: { aside: true, give: [FIRST.mark] }, of: { mark: FIRST.mark }, against: "last full", measure: "l1" },
  };
}
