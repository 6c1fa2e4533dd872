/** What the FEMO paper sets on FLUX (femo.md section 2), and what others published for it. */
export const paperPresets = {
  fora: { firstEnhance: 3 },
  taylorSeer: { order: 1, firstEnhance: 3 },
  newton: { order: 1, firstEnhance: 3 },
  hiCache: { firstEnhance: 3 },
  foca: { firstEnhance: 3 },
  femo: { order: 1, beta: 0.325, firstEnhance: 3 },
  adaptedFemo: { order: 1, beta: 0.325, delta: 0.125, gamma: 0.01, firstEnhance: 3 },
  toca: { ratio: 0.1, ratioSchedule: "flux", intervalSchedule: "constant" },
  duca: { ratioSchedule: "flux", intervalSchedule: "constant" },
  teaCache: { coefficients: "flux" },
  magCache: { ratios: "flux" },
};
