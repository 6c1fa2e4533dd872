import type { Run } from "./run.js";

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

export interface PaperRow {
  readonly method: string;
  /** N and O, as printed. */
  readonly interval?: number;
  readonly order?: number;
  /** 10^12 operations an image. */
  readonly flops: number;
  readonly speed: number;
  readonly run: Run;
  /** Values that contradict the paper's own, or its methods' published code, and why. */
  readonly slip?: { readonly of: readonly ("flops" | "speed")[]; readonly why: string };
  /** What the reproduction takes for granted. */
  readonly note?: string;
}

const steps = (method: string, n: number, flops: number, speed: number): PaperRow => ({
  method,
  flops,
  speed,
  run: { kind: "steps", steps: n },
});
/** A method on an interval: one that forecasts or reuses all modules. */
const on = (
  kind: "forecast" | "fora" | "deltaDit",
  method: string,
  interval: number,
  flops: number,
  speed: number,
  more: Partial<PaperRow> = {},
): PaperRow => ({ method, interval, flops, speed, run: { kind, interval }, ...more });
const tokenwise = (
  kind: "toca" | "duca",
  interval: number,
  ratio: number,
  flops: number,
  speed: number,
  more: Partial<PaperRow> = {},
): PaperRow => ({
  method: kind === "toca" ? "ToCa" : "DuCa",
  interval,
  flops,
  speed,
  run: { kind, interval, ratio },
  ...more,
});
const unknown = (method: string, flops: number, speed: number, reason: string, interval?: number): PaperRow => ({
  method,
  ...(interval !== undefined && { interval }),
  flops,
  speed,
  run: { kind: "unknown", reason },
});
const teaCache = (threshold: number, computed: number, flops: number, speed: number): PaperRow => ({
  method: `TeaCache l=${threshold}`,
  flops,
  speed,
  run: { kind: "teaCache", computed },
  note: `${computed} steps of the blocks' products; the others counted as nothing`,
});
const taylorSeer = (interval: number, order: number, flops: number, speed: number): PaperRow =>
  on("forecast", "TaylorSeer", interval, flops, speed, { order });
const femo = (method: "FEMO" | "Adapted-FEMO", order: number, rows: readonly (readonly number[])[]): PaperRow[] =>
  rows.map(([interval, flops, speed]) =>
    on("forecast", method, interval as number, flops as number, speed as number, { order }),
  );

const fitted = (ratio: number): Partial<PaperRow> => ({
  note: `its share of fresh tokens is not printed; ${ratio} gives the digits`,
});
const skipping: Partial<PaperRow> = {
  note: "steps that skip all blocks counted with the modulations of the double ones alone, which gives the digits",
};
const noRatio = (interval: number, nearest: number): string =>
  `its share of fresh tokens is not printed, and no whole percent gives the digits at N = ${interval}; 0.05 gives ${nearest}`;

const adaptedDit = (interval: number, flops: number, speed: number): PaperRow[] =>
  femo("Adapted-FEMO", 2, [[interval, flops, speed]]);
const adaptedFlux = (interval: number, flops: number, speed: number): PaperRow[] =>
  femo("Adapted-FEMO", 1, [[interval, flops, speed]]);

const ditIntervals = [
  [3, 8.56, 2.77],
  [4, 6.66, 3.56],
  [5, 5.24, 4.53],
  [6, 4.76, 4.98],
  [7, 3.82, 6.22],
  [8, 3.82, 6.22],
] as const;
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
      on("deltaDit", "Delta-DiT", 2, 2480.01, 1.5, {
        note: "25 x 74.39 + 25 x 24.81, without single blocks, is 2480.00",
      }),
      unknown("DBCache", 2384.29, 1.56, "its configuration is not given, and its steps depend on the images"),
      steps("50% steps", 25, 1859.75, 2),
      { ...steps("40% steps", 20, 1487.8, 2.62), slip: { of: ["speed"], why: "3719.50 / 1487.80 is 2.50" } },
      { ...steps("34% steps", 17, 1264.63, 3.13), slip: { of: ["speed"], why: "3719.50 / 1264.63 is 2.94" } },
      on("deltaDit", "Delta-DiT", 3, 1686.76, 2.21, {
        note: "as the public code runs: 17 full steps, 17 without single blocks, 16 that reuse all modules",
      }),
      unknown(
        "Chipmunk",
        1505.87,
        2.47,
        "its masks depend on the images, and how its sparse kernels were counted is not given",
      ),
      on("fora", "FORA", 3, 1320.07, 2.82, {
        note: "reuse before the projections of attention, which run at each step",
      }),
      tokenwise("toca", 5, 0.1, 1126.76, 3.3, {
        note: "attention kept before its projections, which run at each step",
      }),
      tokenwise("duca", 5, 0.1, 1078.34, 3.45, {
        slip: { of: ["flops", "speed"], why: "other papers print 978.76 for it, and the public code counts 978.7" },
      }),
      taylorSeer(4, 2, 1042.28, 3.57),
      ...adaptedFlux(4, 1042.28, 3.57),
      on("fora", "FORA", 5, 893.54, 4.16),
      teaCache(0.8, 12, 892.35, 4.17),
      tokenwise("toca", 8, 0.1, 784.54, 4.74),
      tokenwise("duca", 6, 0.1, 816.55, 4.56, skipping),
      taylorSeer(6, 2, 744.81, 4.99),
      ...adaptedFlux(6, 744.81, 4.99),
      on("fora", "FORA", 7, 670.44, 5.55),
      tokenwise("toca", 10, 0.1, 714.66, 5.2),
      tokenwise("duca", 9, 0.1, 690.26, 5.39, skipping),
      taylorSeer(7, 2, 670.44, 5.55),
      teaCache(1.2, 9, 669.27, 5.56),
      ...adaptedFlux(7, 670.44, 5.55),
      on("fora", "FORA", 9, 596.07, 6.24),
      tokenwise("toca", 12, 0.1, 644.7, 5.77, {
        note: "6 x 74.39 + 44 x 4.51 is 644.78; the same steps give N = 8 and 10",
      }),
      tokenwise("duca", 10, 0.1, 606.91, 6.13, skipping),
      teaCache(1.4, 8, 594.9, 6.25),
      taylorSeer(8, 2, 596.07, 6.24),
      ...adaptedFlux(8, 596.07, 6.24),
    ],
  },
  {
    name: "4",
    title: "Table 4: DiT-XL/2 at 256x256, 50 DDIM steps",
    model: "DiT-XL/2",
    rows: [
      steps("DDIM-50 steps", 50, 23.74, 1),
      steps("DDIM-25 steps", 25, 11.87, 2),
      on("deltaDit", "Delta-DiT", 2, 18.04, 1.31, { note: "23.74 / 18.04 is 1.32" }),
      on("deltaDit", "Delta-DiT", 3, 16.14, 1.47),
      steps("DDIM-20 steps", 20, 9.49, 2.5),
      on("fora", "FORA", 3, 8.58, 2.77, { note: "18 full steps, as TaylorSeer's at N = 3, printed as 8.56" }),
      tokenwise("toca", 3, 0.07, 10.23, 2.32),
      tokenwise("duca", 3, 0.05, 9.58, 2.48),
      taylorSeer(3, 4, 8.56, 2.77),
      ...adaptedDit(3, 8.56, 2.77),
      steps("DDIM-12 steps", 12, 5.7, 4.17),
      on("fora", "FORA", 4, 6.66, 3.56),
      unknown("ToCa", 6.34, 3.75, noRatio(6, 6.38), 6),
      unknown("DuCa", 5.81, 4.08, noRatio(6, 5.86), 6),
      taylorSeer(5, 4, 5.24, 4.53),
      ...adaptedDit(5, 5.24, 4.53),
      steps("DDIM-10 steps", 10, 4.75, 5),
      on("fora", "FORA", 7, 3.82, 6.22),
      tokenwise("toca", 13, 0.03, 4.03, 5.9, fitted(0.03)),
      tokenwise("duca", 12, 0.07, 3.94, 6.02, fitted(0.07)),
      taylorSeer(7, 4, 3.82, 6.22),
      ...adaptedDit(7, 3.82, 6.22),
      steps("DDIM-7 steps", 7, 3.32, 7.14),
      on("fora", "FORA", 8, 3.34, 7.1, {
        slip: { of: ["flops", "speed"], why: "the cost of N = 9, with 7 full steps; N = 8 has 8" },
      }),
      tokenwise("toca", 13, 0.02, 3.66, 6.48, fitted(0.02)),
      tokenwise("duca", 18, 0.01, 3.59, 6.61, fitted(0.01)),
      taylorSeer(9, 4, 3.34, 7.1),
      ...adaptedDit(9, 3.34, 7.1),
    ],
  },
  {
    name: "A1",
    title: "Appendix, Table 1: FEMO on DiT-XL/2",
    model: "DiT-XL/2",
    rows: [...femo("FEMO", 1, ditIntervals), ...femo("FEMO", 2, [...ditIntervals, [9, 3.34, 7.1]])],
  },
  {
    name: "A2",
    title: "Appendix, Table 2: Adapted-FEMO on DiT-XL/2",
    model: "DiT-XL/2",
    rows: femo("Adapted-FEMO", 2, [...ditIntervals, [9, 3.34, 7.1]]),
  },
  {
    name: "A3",
    title: "Appendix, Table 3: FEMO on FLUX.1-dev",
    model: "FLUX.1-dev",
    rows: femo("FEMO", 1, fluxIntervals),
  },
  {
    name: "A4",
    title: "Appendix, Table 4: Adapted-FEMO on FLUX.1-dev",
    model: "FLUX.1-dev",
    rows: femo("Adapted-FEMO", 1, fluxIntervals),
  },
];
