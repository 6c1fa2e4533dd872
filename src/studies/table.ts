import type { Comparison, ComparisonRow, Quality } from "./compare.js";

/** Columns of the summary: heading, cell, and what the heading means. */
export const summaryColumns: readonly {
  readonly heading: string;
  readonly meaning: string;
  readonly cell: (row: ComparisonRow) => string;
}[] = [
  { heading: "Full steps", meaning: "Steps that ran the whole network, of all steps", cell: fullStepsText },
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
    heading: "PSNR dB",
    meaning: "Likeness to the reference of the same seed: mean over images and its standard error. Higher is closer",
    cell: (row) => qualityText(row.psnr, 2),
  },
  {
    heading: "SSIM",
    meaning: "Structural similarity to the reference of the same seed; 1 is identical",
    cell: (row) => qualityText(row.ssim, 3),
  },
  { heading: "State", meaning: "Memory for the features of one batch", cell: (row) => bytesText(row.stateBytes) },
];

/** The summary as aligned plain text, a line for each variant. */
export function comparisonTable({ rows }: Comparison): string {
  const lines = [
    ["", ...summaryColumns.map(({ heading }) => heading)],
    ...rows.map((row) => [row.name, ...summaryColumns.map(({ cell }) => cell(row))]),
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

/** "27.31 ±0.80"; "-" where there is nothing to compare with, "identical" where nothing differs. */
export function qualityText(quality: Quality | undefined, digits: number): string {
  if (!quality) return "-";
  if (quality.mean === Number.POSITIVE_INFINITY) return "identical";
  const error = quality.standardError === undefined ? "" : ` ±${quality.standardError.toFixed(digits)}`;
  return quality.mean.toFixed(digits) + error;
}

/** "1.31 s" */
export const secondsText = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

/** "12.6 MB", in powers of ten. */
export function bytesText(bytes: number): string {
  if (bytes === 0) return "0";
  const power = Math.min(3, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** power).toFixed(power === 0 ? 0 : 1)} ${["B", "kB", "MB", "GB"][power]}`;
}

/** Of an image, on average. */
export function fullStepsText({ fullSteps, numInferenceSteps }: ComparisonRow): string {
  const mean = fullSteps.reduce((sum, steps) => sum + steps.length, 0) / fullSteps.length;
  return `${Number(mean.toFixed(1))} of ${numInferenceSteps}`;
}

const width = (text: string): number => [...text].length;
