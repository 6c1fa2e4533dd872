import { adaptedFemo, deltaDit, duca, femo, fora, taylorSeer, toca } from "../../methods/index.js";
import { cached, type PaperRow, steps, thresholded, unknown } from "./paper-rows.js";

/**
 * FLOPs and FLOPs speed-ups as printed in "Accelerate Diffusion Transformers with Feature Momentum" (ICLR 2026
 * submission 13027), row by row, and what each row ran.
 */
export interface PaperTable {
  /** "1", "4", "A1" .. "A4": those of the appendix. */
  readonly name: string;
  readonly title: string;
  readonly model: "DiT-XL/2" | "FLUX.1-dev";
  readonly rows: readonly PaperRow[];
}

/** What the code of the methods does on FLUX and femo's defaults, which are those for DiT, do not. */
const warmUp = { firstEnhance: 3 };
const tokens = { ...warmUp, intervalSchedule: "constant", ratio: 0.1, ratioSchedule: "flux" } as const;

const fitted = (ratio: number): Pick<PaperRow, "note"> => ({
  note: `its share of fresh tokens is not printed; ${ratio} gives the digits`,
});
const skipping: Pick<PaperRow, "note"> = {
  note: "steps that skip all blocks counted with the modulations of the double ones alone, which gives the digits",
};
const noRatio = (interval: number, nearest: number): string =>
  `its share of fresh tokens is not printed, and no whole percent gives the digits at N = ${interval}; 0.05 gives ${nearest}`;

/** Interval, FLOPs and speed-up. */
const ditIntervals = [
  [3, 8.56, 2.77],
  [4, 6.66, 3.56],
  [5, 5.24, 4.53],
  [6, 4.76, 4.98],
  [7, 3.82, 6.22],
  [8, 3.82, 6.22],
] as const;
const ditIntervalsTo9 = [...ditIntervals, [9, 3.34, 7.1]] as const;
const fluxIntervals = [
  [3, 1339.75, 2.78],
  [4, 1042.28, 3.57],
  [5, 893.54, 4.16],
  [6, 744.81, 4.99],
  [7, 670.44, 5.55],
  [8, 596.07, 6.24],
  [9, 596.07, 6.24],
  [10, 521.71, 7.13],
] as const;

export const paperTables: readonly PaperTable[] = [
  {
    name: "1",
    title: "Table 1: FLUX.1-dev at 1024x1024, 50 steps",
    model: "FLUX.1-dev",
    rows: [
      steps("50 steps", 50, 3719.5, 1),
      steps("60% steps", 30, 2231.7, 1.67),
      cached(deltaDit({ interval: 2, compat: true }), 2480.01, 1.5, {
        note: "25 x 74.39 + 25 x 24.81, without single blocks, is 2480.00",
      }),
      unknown("DBCache", 2384.29, 1.56, "its configuration is not given, and its steps depend on the images"),
      steps("50% steps", 25, 1859.75, 2),
      { ...steps("40% steps", 20, 1487.8, 2.62), slip: { of: ["speed"], why: "3719.50 / 1487.80 is 2.50" } },
      { ...steps("34% steps", 17, 1264.63, 3.13), slip: { of: ["speed"], why: "3719.50 / 1264.63 is 2.94" } },
      cached(deltaDit({ interval: 3, compat: true }), 1686.76, 2.21, {
        note: "as the public code runs: 17 full steps, 17 without single blocks, 16 that reuse all modules",
      }),
      unknown(
        "Chipmunk",
        1505.87,
        2.47,
        "its masks depend on the images, and how its sparse kernels were counted is not given",
      ),
      cached(fora({ interval: 3, firstEnhance: 1 }), 1320.07, 2.82, {
        projects: true,
        note: "reuse before the projections of attention, which run at each step",
      }),
      cached(toca({ interval: 5, ...tokens }), 1126.76, 3.3, {
        projects: true,
        note: "attention kept before its projections, which run at each step",
      }),
      cached(duca({ interval: 5, ...tokens }), 1078.34, 3.45, {
        slip: { of: ["flops", "speed"], why: "other papers print 978.76 for it, and the public code counts 978.7" },
      }),
      cached(taylorSeer({ interval: 4, order: 2, ...warmUp }), 1042.28, 3.57),
      cached(adaptedFemo({ interval: 4, order: 1, ...warmUp }), 1042.28, 3.57),
      cached(fora({ interval: 5, ...warmUp }), 893.54, 4.16),
      thresholded(0.8, 12, 892.35, 4.17),
      cached(toca({ interval: 8, ...tokens }), 784.54, 4.74),
      cached(duca({ interval: 6, ...tokens }), 816.55, 4.56, skipping),
      cached(taylorSeer({ interval: 6, order: 2, ...warmUp }), 744.81, 4.99),
      cached(adaptedFemo({ interval: 6, order: 1, ...warmUp }), 744.81, 4.99),
      cached(fora({ interval: 7, ...warmUp }), 670.44, 5.55),
      cached(toca({ interval: 10, ...tokens }), 714.66, 5.2),
      cached(duca({ interval: 9, ...tokens }), 690.26, 5.39, skipping),
      cached(taylorSeer({ interval: 7, order: 2, ...warmUp }), 670.44, 5.55),
      thresholded(1.2, 9, 669.27, 5.56),
      cached(adaptedFemo({ interval: 7, order: 1, ...warmUp }), 670.44, 5.55),
      cached(fora({ interval: 9, ...warmUp }), 596.07, 6.24),
      cached(toca({ interval: 12, ...tokens }), 644.7, 5.77, {
        note: "6 x 74.39 + 44 x 4.51 is 644.78; the same steps give N = 8 and 10",
      }),
      cached(duca({ interval: 10, ...tokens }), 606.91, 6.13, skipping),
      thresholded(1.4, 8, 594.9, 6.25),
      cached(taylorSeer({ interval: 8, order: 2, ...warmUp }), 596.07, 6.24),
      cached(adaptedFemo({ interval: 8, order: 1, ...warmUp }), 596.07, 6.24),
    ],
  },
  {
    name: "4",
    title: "Table 4: DiT-XL/2 at 256x256, 50 DDIM steps",
    model: "DiT-XL/2",
    rows: [
      steps("DDIM-50 steps", 50, 23.74, 1),
      steps("DDIM-25 steps", 25, 11.87, 2),
      cached(deltaDit({ interval: 2 }), 18.04, 1.31, { note: "23.74 / 18.04 is 1.32" }),
      cached(deltaDit({ interval: 3 }), 16.14, 1.47),
      steps("DDIM-20 steps", 20, 9.49, 2.5),
      cached(fora({ interval: 3 }), 8.58, 2.77, { note: "18 full steps, as TaylorSeer's at N = 3, printed as 8.56" }),
      cached(toca({ interval: 3, ratio: 0.07, compat: true }), 10.23, 2.32),
      cached(duca({ interval: 3, ratio: 0.05, compat: true }), 9.58, 2.48),
      cached(taylorSeer({ interval: 3, order: 4 }), 8.56, 2.77),
      cached(adaptedFemo({ interval: 3, order: 2 }), 8.56, 2.77),
      steps("DDIM-12 steps", 12, 5.7, 4.17),
      cached(fora({ interval: 4 }), 6.66, 3.56),
      unknown("ToCa", 6.34, 3.75, noRatio(6, 6.38), 6),
      unknown("DuCa", 5.81, 4.08, noRatio(6, 5.86), 6),
      cached(taylorSeer({ interval: 5, order: 4 }), 5.24, 4.53),
      cached(adaptedFemo({ interval: 5, order: 2 }), 5.24, 4.53),
      steps("DDIM-10 steps", 10, 4.75, 5),
      cached(fora({ interval: 7 }), 3.82, 6.22),
      cached(toca({ interval: 13, ratio: 0.03, compat: true }), 4.03, 5.9, fitted(0.03)),
      cached(duca({ interval: 12, ratio: 0.07, compat: true }), 3.94, 6.02, fitted(0.07)),
      cached(taylorSeer({ interval: 7, order: 4 }), 3.82, 6.22),
      cached(adaptedFemo({ interval: 7, order: 2 }), 3.82, 6.22),
      steps("DDIM-7 steps", 7, 3.32, 7.14),
      cached(fora({ interval: 8 }), 3.34, 7.1, {
        slip: { of: ["flops", "speed"], why: "the cost of N = 9, with 7 full steps; N = 8 has 8" },
      }),
      cached(toca({ interval: 13, ratio: 0.02, compat: true }), 3.66, 6.48, fitted(0.02)),
      cached(duca({ interval: 18, ratio: 0.01, compat: true }), 3.59, 6.61, fitted(0.01)),
      cached(taylorSeer({ interval: 9, order: 4 }), 3.34, 7.1),
      cached(adaptedFemo({ interval: 9, order: 2 }), 3.34, 7.1),
    ],
  },
  {
    name: "A1",
    title: "Appendix, Table 1: FEMO on DiT-XL/2",
    model: "DiT-XL/2",
    rows: [
      ...ditIntervals.map(([interval, flops, speed]) => cached(femo({ interval, order: 1 }), flops, speed)),
      ...ditIntervalsTo9.map(([interval, flops, speed]) => cached(femo({ interval, order: 2 }), flops, speed)),
    ],
  },
  {
    name: "A2",
    title: "Appendix, Table 2: Adapted-FEMO on DiT-XL/2",
    model: "DiT-XL/2",
    rows: ditIntervalsTo9.map(([interval, flops, speed]) => cached(adaptedFemo({ interval, order: 2 }), flops, speed)),
  },
  {
    name: "A3",
    title: "Appendix, Table 3: FEMO on FLUX.1-dev",
    model: "FLUX.1-dev",
    rows: fluxIntervals.map(([interval, flops, speed]) =>
      cached(femo({ interval, order: 1, ...warmUp }), flops, speed),
    ),
  },
  {
    name: "A4",
    title: "Appendix, Table 4: Adapted-FEMO on FLUX.1-dev",
    model: "FLUX.1-dev",
    rows: fluxIntervals.map(([interval, flops, speed]) =>
      cached(adaptedFemo({ interval, order: 1, ...warmUp }), flops, speed),
    ),
  },
];
