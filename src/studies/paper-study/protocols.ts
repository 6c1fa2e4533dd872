import { type CacheOptions, methodTitle } from "../../methods/index.js";
import { paperTables } from "../costs/paper-tables.js";
import {
  cellOf,
  distinct,
  referenceCell,
  type StudyCell,
  type StudyDrawing,
  type StudySubject,
} from "../quality-study/plan.js";

/** How the FEMO paper judged a model, as far as it says, and the closest reading where it does not. */
export interface PaperProtocol {
  /** On the Hub. */
  readonly model: string;
  /** In all. */
  readonly images: number;
  readonly numInferenceSteps: number;
  readonly drawing: StudyDrawing;
  /** What is measured beside PSNR and SSIM. */
  readonly metrics: readonly PaperMetric[];
  /** The rows of its tables. */
  cells(): StudyCell[];
}

/** "fid:tf" is Frechet distance of both layers by ADM's resize, "fid:pytorch" of FID's layer by pytorch-fid's. */
export type PaperMetric = "fid:tf" | "fid:pytorch" | "lpips:alex" | "clip:L/14" | "image-reward";

type Chosen = Exclude<CacheOptions, string>;

/** The rows of tables as cells; what a row ran that cannot be told is left out. */
function tableCells(
  names: readonly string[],
  numInferenceSteps: number,
  change: (cache: Chosen) => Chosen,
): StudyCell[] {
  const rows = paperTables.filter(({ name }) => names.includes(name)).flatMap((table) => table.rows);
  const cells = rows.flatMap(({ method, run }) => {
    if ("reason" in run) return [];
    const { cache, numSteps } = run;
    if (typeof cache === "string") {
      if (numSteps === numInferenceSteps) return [referenceCell(numInferenceSteps)];
      return [cellOf({ group: "Fewer steps", series: "Fewer steps", request: { numInferenceSteps: numSteps } })];
    }
    const settings = change(cache);
    const words = Object.entries(settings).flatMap(([key, value]) =>
      key === "method" || key === "compat" ? [] : [`${key} ${value}`],
    );
    const series = [method, ...words.filter((word) => !word.startsWith("interval"))].join(", ");
    return [cellOf({ group: method, series, request: { cache: settings, numInferenceSteps: numSteps } })];
  });
  return distinct([referenceCell(numInferenceSteps), ...cells]);
}

/** The paper's beta on DiT is -0.2 at order 1 and -0.02 at order 2, which the presets have. */
const ofDit = (cache: Chosen): Chosen =>
  (cache.method === "femo" || cache.method === "adaptedFemo") && cache.order === 1 ? { ...cache, beta: -0.2 } : cache;

/** Table 2 prints no settings but N and O = 1; the closest readings of its speed-ups are `output` and cut 4, `module` and cut 6. */
function sdxlCells(numInferenceSteps: number): StudyCell[] {
  const every = [2, 7].flatMap((interval): Chosen[] => [
    ...[4, 6].map((cacheBranchId): Chosen => ({ method: "deepCache", interval, cacheBranchId })),
    ...["output", "module"].flatMap((granularity): Chosen[] => [
      { method: "taylorSeer", interval, order: 1, firstEnhance: 1, granularity },
      { method: "femo", interval, order: 1, beta: 0.325, firstEnhance: 1, granularity },
    ]),
  ]);
  return [
    referenceCell(numInferenceSteps),
    ...every.map((cache) => {
      const group = methodTitle(cache.method);
      const words = Object.entries(cache).flatMap(([key, value]) =>
        ["granularity", "cacheBranchId"].includes(key) ? [`${key} ${value}`] : [],
      );
      return cellOf({ group, series: [group, ...words].join(", "), request: { cache, numInferenceSteps } });
    }),
  ];
}

/** The names that `femo study paper` has for the paper's models. */
export type PaperModel = "dit" | "flux" | "sdxl";

/** The paper's three models. */
export const paperProtocols: Readonly<Record<PaperModel, PaperProtocol>> = {
  dit: {
    // Tables 4, A1 and A2: DiT-XL/2 at 256x256
    model: "facebook/DiT-XL-2-256",
    images: 50_000,
    numInferenceSteps: 50,
    drawing: { guidanceScale: 1.5, guidanceChannels: 3, timestepSpacing: "dit" },
    metrics: ["fid:tf"],
    cells: () => tableCells(["4", "A1", "A2"], 50, ofDit),
  },
  flux: {
    // Tables 1, 3, A3 and A4: FLUX.1-dev at 1024x1024
    model: "black-forest-labs/FLUX.1-dev",
    images: 200,
    numInferenceSteps: 50,
    drawing: { height: 1024, width: 1024 },
    metrics: ["fid:pytorch", "lpips:alex", "clip:L/14", "image-reward"],
    cells: () => tableCells(["1", "A3", "A4"], 50, (cache) => cache),
  },
  sdxl: {
    // Table 2: SDXL at 1024x1024
    model: "stabilityai/stable-diffusion-xl-base-1.0",
    images: 200,
    numInferenceSteps: 50,
    drawing: { height: 1024, width: 1024 },
    metrics: ["lpips:alex", "clip:L/14", "image-reward"],
    cells: () => sdxlCells(50),
  },
};

/**
 * Classes for so many images: each as often as the others, in turns, or uniformly at random from a seed, as the harness of
 * DiT draws them.
 */
export function classSubjects(
  classes: number,
  images: number,
  labels: "balanced" | "random",
  seed: number,
): StudySubject[] {
  if (labels === "balanced") return Array.from({ length: classes }, (_, subject) => ({ subject }));
  let state = seed >>> 0;
  /** mulberry32, in 0 .. 1. */
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
  return Array.from({ length: images }, () => ({ subject: Math.floor(uniform() * classes) }));
}
