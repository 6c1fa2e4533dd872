import type { CachePresets } from "./cache-options.js";

const placed = { interval: 5, firstEnhance: 2, granularity: "module", measure: true } as const;
const momentum = { seed: "zero", biasCorrection: "updates" } as const;

/** DiT: schedule, orders and coefficients of the FEMO paper (femo.md section 2). */
export const ditPresets: CachePresets = {
  fora: placed,
  taylorSeer: { ...placed, order: 2 },
  newton: { ...placed, order: 2 },
  femo: { ...placed, ...momentum, order: 2, beta: -0.02 },
  adaptedFemo: { ...placed, ...momentum, order: 2, beta: -0.02, gamma: 0.007, delta: 0.02 },
};
