import type { Comparison } from "./compare.js";
import type { Quality } from "./quality.js";
import type { ComparisonRow } from "./rows.js";

interface Column {
  readonly heading: string;
  readonly meaning: string;
  readonly cell: (row: ComparisonRow) => string;
}

const MEANING = "over images: mean with its standard error, median, and the tenth percentile, below which a tenth lie";

/** Columns of the summary: heading, cell, and what the heading means. */
export const summaryColumns = (rows: readonly ComparisonRow[]): readonly Column[] => [
  { heading: "Full steps", meaning: "Steps of an image that ran the whole network, of all steps", cell: fullStepsText },
  {
    heading: "FLOPs speed-up",
    meaning: "Floating-point operations of the reference over those done",
    cell: (row) => `${row.flopsSpeedup.toFixed(2)}x`,
  },
  {
    heading: "Measured",
    meaning: "Time of the reference over time taken",
    cell: (row) => `${row.measuredSpeedup.toFixed(2)}x`,
  },
  { heading: "Time", meaning: "Time in the runtime for all images", cell: (row) => secondsText(row.durationMs) },
  {
    heading: "PSNR dB, median, 10 %",
    meaning: `Likeness to the reference of the same seed, ${MEANING}. Higher is closer`,
    cell: (row) => qualityText(row.psnr, 2),
  },
  ...(rows.some(({ psnrConverged }) => psnrConverged)
    ? [
        {
          heading: "PSNR to converged, median, 10 %",
          meaning: `Likeness to the image of the same seed that very many steps give, ${MEANING}`,
          cell: (row: ComparisonRow) => qualityText(row.psnrConverged, 2),
        },
      ]
    : []),
  {
    heading: "SSIM, median, 10 %",
    meaning: `Structural similarity to the reference of the same seed, ${MEANING}; 1 is identical`,
    cell: (row) => qualityText(row.ssim, 3),
  },
  { heading: "State", meaning: "Memory for the features of one batch", cell: (row) => bytesText(row.stateBytes) },
];

/** The summary as aligned plain text, a line for each variant. */
export function comparisonTable({ rows }: Comparison): string {
  const columns = summaryColumns(rows);
  const lines = [
    ["", ...columns.map(({ heading }) => heading)],
    ...rows.map((row) => [row.name, ...columns.map(({ cell }) => cell(row))]),
  ];
  return alignedText(lines);
}

/** What is known to cost quality in these rows: each once, with the rows it is of. */
export function warningsOf(rows: readonly ComparisonRow[]): string[] {
  const warnings = [...new Set(rows.flatMap((row) => row.warnings))];
  return warnings.map((warning) => {
    const names = rows.filter((row) => row.warnings.includes(warning)).map(({ name }) => name);
    return `${names.length === rows.length ? "All rows" : names.join(", ")}: ${warning}`;
  });
}

/** Rows of cells as plain text, the first column to the left, the others to the right. */
export function alignedText(lines: readonly (readonly string[])[]): string {
  const widths = (lines[0] ?? []).map((_, i) => Math.max(...lines.map((line) => width(line[i] as string))));
  return lines
    .map((line) =>
      line
        .map((cell, i) => {
          const space = " ".repeat((widths[i] as number) - width(cell));
          return i === 0 ? cell + space : space + cell;
        })
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** "27.31 ±0.80, 26.80, 21.04"; "-" where there is nothing to compare with, "identical" where nothing differs. */
export function qualityText(quality: Quality | undefined, digits: number): string {
  if (!quality) return "-";
  const { mean, median, tenthPercentile, standardError, values } = quality;
  if (values.every((value) => value === Number.POSITIVE_INFINITY)) return "identical";
  const text = (value: number): string => (value === Number.POSITIVE_INFINITY ? "∞" : value.toFixed(digits));
  const error = standardError === undefined ? "" : ` ±${text(standardError)}`;
  return `${text(mean)}${error}, ${text(median)}, ${text(tenthPercentile)}`;
}

/** "1.31 s" */
export const secondsText = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

/** "12.6 MB", in powers of ten. */
export function bytesText(bytes: number): string {
  if (bytes === 0) return "0";
  const power = Math.min(3, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${["B", "kB", "MB", "GB"][power]}`;
}

/** "11 of 50", or "11-13 of 50" where that differs between images. */
export function fullStepsText({ fullSteps, steps }: ComparisonRow): string {
  const counts = fullSteps.map(({ length }) => length);
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  return `${least === most ? least : `${least}-${most}`} of ${steps.length}`;
}

const width = (text: string): number => [...text].length;
