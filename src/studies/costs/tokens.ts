import { roundHalfEven } from "../../samplers/index.js";

/**
 * The token-wise methods of the paper's tables, as far as their cost goes: how many tokens a step computes anew
 * (ToCa) and which cached steps compute none at all (DuCa).
 */

/** What a layer does in a step: all, the MLP of so many tokens, or nothing. */
export type LayerWork = "full" | "skip" | { readonly tokens: number };

/** floor(ratio * tokens), ratio within 0 .. 1, in the single precision of the methods' own code. */
export const freshTokens = (ratio: number, tokens: number): number =>
  Math.floor(Math.fround(Math.fround(Math.min(1, Math.max(0, ratio))) * tokens));

export interface TokenwiseOptions {
  /** N. */
  readonly interval: number;
  /** Share of tokens computed anew, before its factors. */
  readonly ratio: number;
  /** DuCa: every other cached step skips all blocks. */
  readonly dual: boolean;
}

/**
 * ToCa and DuCa on DiT, for each step and layer. The interval grows and shrinks over the run, and since each layer asks
 * for it and a full layer changes it, a step may be full in its first layer alone: the code's own behaviour, kept
 * because the printed costs include it.
 */
export function ditTokenwise(
  { interval, ratio, dual }: TokenwiseOptions,
  { numSteps, numLayers, tokens }: { numSteps: number; numLayers: number; tokens: number },
): LayerWork[][] {
  let current = interval;
  return Array.from({ length: numSteps }, (_, i) => {
    const s = numSteps - 1 - i; // counts down
    return Array.from({ length: numLayers }, (_, layer): LayerWork => {
      if (i === 0 || s % current === 0) {
        current = currentInterval(interval, s, numSteps);
        return "full";
      }
      if (dual && (s % current) % 2 === 0) return "skip";
      const stepFactor = 3 - (4 * s) / numSteps;
      const layerFactor = 0.8 + (0.4 * layer) / (numLayers - 1);
      return { tokens: freshTokens(ratio * layerFactor * stepFactor * 2.5, tokens) };
    });
  });
}

/** N over a factor from 0.6 early to 1.4 late; 2 in the fifth of the run that is the most sensitive. */
function currentInterval(interval: number, s: number, numSteps: number): number {
  if (s >= 0.2 * numSteps && s < 0.4 * numSteps) return 2;
  return roundHalfEven(Math.fround(interval / Math.fround(1.4 - (0.8 * s) / numSteps)));
}

/** Share of tokens that ToCa computes anew in a block of FLUX; layers count from 0 in each of the two stacks. */
export const fluxFreshRatio = (ratio: number, layer: number, stream: "double" | "single"): number =>
  ratio * (1.5 - layer / 27) * (stream === "double" ? 0.4 : 1.6);
