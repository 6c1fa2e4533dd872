import { type Quality, qualityOf } from "../quality.js";
import type { StudyRow } from "./summary.js";

/** Something by which rows are ranked. */
export interface Measure {
  readonly key: string;
  readonly title: string;
  /** 1: the more the better. -1: the less. */
  readonly sign: 1 | -1;
  readonly of: (row: StudyRow) => number | undefined;
  /** Half of the confidence interval of 95 %. */
  readonly margin: (row: StudyRow) => number | undefined;
  /** Of a mean over images, what it is the mean of. */
  readonly values?: (row: StudyRow) => readonly number[] | undefined;
}

const HOW = { mean: "mean", median: "median", tenthPercentile: "tenth percentile" } as const;
const KNOWN: Readonly<Record<string, readonly [title: string, sign: 1 | -1]>> = {
  psnr: ["PSNR, dB", 1],
  ssim: ["SSIM", 1],
  distance: ["Learned distance", -1],
  lpips: ["LPIPS", -1],
  accuracy: ["Right labels", 1],
  clip: ["CLIP score", 1],
  imageReward: ["ImageReward", 1],
};
const TARGETS = { reference: "to the uncached images", converged: "to the converged sampler" } as const;

/** All that rows can be ranked by, the most telling first. */
export function measuresOf(rows: readonly StudyRow[]): Measure[] {
  const names = (of: "reference" | "converged" | "scores" | "frechet") => [
    ...new Set(rows.flatMap((row) => Object.keys(row[of]))),
  ];
  const margin = (quality: Quality | undefined) =>
    quality?.standardError === undefined ? undefined : 1.96 * quality.standardError;
  const likenesses = (["reference", "converged"] as const).flatMap((target) =>
    names(target).flatMap((name) =>
      (Object.keys(HOW) as (keyof typeof HOW)[]).map((how): Measure => {
        const [title, sign] = KNOWN[name] ?? [name, -1];
        return {
          ...{ key: `${target}.${name}.${how}`, title: `${title}, ${HOW[how]}, ${TARGETS[target]}`, sign },
          of: (row) => row[target][name]?.[how],
          margin: (row) => (how === "mean" ? margin(row[target][name]) : undefined),
          ...(how === "mean" && { values: (row) => row[target][name]?.values }),
        };
      }),
    ),
  );
  const frechet = names("frechet").map(
    (layer): Measure => ({
      ...{ key: `frechet.${layer}`, title: `Frechet distance, ${layer}`, sign: -1 },
      of: (row) => row.frechet[layer],
      margin: () => undefined,
    }),
  );
  const scores = names("scores").map((name): Measure => {
    const [title, sign] = KNOWN[name] ?? [`Right ${name}`, 1];
    return {
      ...{ key: `scores.${name}`, title, sign },
      of: (row) => row.scores[name]?.mean,
      margin: (row) => margin(row.scores[name]),
    };
  });
  return [...likenesses, ...frechet, ...scores];
}

/** What a row is set against: the larger the cheaper. */
export const speeds = {
  flopsSpeedup: { title: "Speed-up by FLOPs", of: (row: StudyRow): number => row.flopsSpeedup },
  measuredSpeedup: { title: "Measured speed-up", of: (row: StudyRow): number => row.measuredSpeedup.median },
  fullSteps: { title: "Runs of the whole network", of: (row: StudyRow): number => -row.fullSteps },
} as const;

/** Of each method its best row near a speed-up: within a tenth. */
export function bestNear(rows: readonly StudyRow[], measure: Measure, speedup: number): StudyRow[] {
  const near = rows.filter((row) => Math.abs(row.flopsSpeedup / speedup - 1) <= 0.1 && measure.of(row) !== undefined);
  const goodness = (row: StudyRow): number => measure.sign * (measure.of(row) as number);
  const best = new Map<string, StudyRow>();
  for (const row of near) {
    const other = best.get(row.cell.group);
    if (!other || goodness(row) > goodness(other)) best.set(row.cell.group, row);
  }
  return [...best.values()].sort((a, b) => goodness(b) - goodness(a));
}

/**
 * How far a row's mean is from another's, image by image, and half of the confidence interval of 95 %: that is narrower than what
 * two intervals of means say, as images that are hard are so for both. Undefined where images differ, or one is identical.
 */
export function differenceOf(
  { values }: Measure,
  row: StudyRow,
  other: StudyRow,
): { readonly mean: number; readonly margin: number } | undefined {
  const [own, theirs] = [values?.(row), values?.(other)];
  if (!own || own.length !== theirs?.length) return undefined;
  const { mean, standardError } = qualityOf(own.map((value, i) => value - (theirs[i] as number)));
  return standardError === undefined ? undefined : { mean, margin: 1.96 * standardError };
}

/** Rows as the page's script takes them. */
export const chartRows = (rows: readonly StudyRow[], measures: readonly Measure[]) =>
  rows.map((row) => ({
    id: row.cell.id,
    group: row.cell.group,
    series: row.cell.series,
    x: Object.fromEntries(Object.entries(speeds).map(([key, { of }]) => [key, Math.abs(of(row))])),
    y: Object.fromEntries(measures.map(({ key, of }) => [key, finite(of(row))])),
    margin: Object.fromEntries(measures.map(({ key, margin }) => [key, finite(margin(row))])),
  }));

const finite = (value: number | undefined): number | null =>
  value === undefined || !Number.isFinite(value) ? null : Number(value.toPrecision(6));
