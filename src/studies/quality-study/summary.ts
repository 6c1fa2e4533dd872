import { FemoError } from "../../errors.js";
import { fitFeatures, fitMoments, frechetDistance, type GaussianFit, MomentSums } from "../../metrics/index.js";
import { csvText } from "../csv.js";
import { type Quality, qualityOf } from "../quality.js";
import { type StudyPart, unpackRows } from "./part.js";
import { referenceCell, type StudyCell, type StudyPlan } from "./plan.js";

/** What came of a cell, over all its images. */
export interface StudyRow {
  readonly cell: StudyCell;
  readonly images: number;
  /** By measure: psnr in dB, ssim, and the judge's distances, against the uncached images and those of the converged sampler. */
  readonly reference: Readonly<Record<string, Quality>>;
  readonly converged: Readonly<Record<string, Quality>>;
  /** Means over images. */
  readonly scores: Readonly<Record<string, Quality>>;
  /** Frechet distance of each layer's features from what they should be like; undefined with too few images. */
  readonly frechet: Readonly<Record<string, number>>;
  /** Runs of the whole network, mean over images. */
  readonly fullSteps: number;
  readonly flopsSpeedup: number;
  /** Time of the uncached images over its own: median over parts, and the least and the most. */
  readonly measuredSpeedup: { readonly median: number; readonly least: number; readonly most: number };
  readonly stateBytes: number;
}

/** What Frechet distances are measured from: what images should be like in a layer; undefined: the uncached ones. */
export type Populations = (layer: string) => GaussianFit | undefined;

/**
 * Of kept parts those over images that every cell has drawn: rows of an unfinished study, too, are then over the same ones, as
 * Frechet distances go with their number. All of them while there is no such image.
 */
export function comparable<Part extends Pick<StudyPart, "cell" | "first">>(
  { cells }: Pick<StudyPlan, "cells">,
  parts: readonly Part[],
): readonly Part[] {
  const have = new Map<number, Set<string>>();
  for (const { first, cell } of parts) have.set(first, (have.get(first) ?? new Set()).add(cell));
  const shared = parts.filter(({ first }) => have.get(first)?.size === cells.length);
  return shared.length > 0 ? shared : parts;
}

/** Rows from parts (`comparable`), in the order of the plan; cells of which there is none are left out. */
export async function studyRows(
  plan: StudyPlan,
  parts: AsyncIterable<StudyPart> | Iterable<StudyPart>,
  populations: Populations,
): Promise<StudyRow[]> {
  const cells = new Map(plan.cells.map((cell) => [cell.id, new CellSums(cell)]));
  for await (const part of parts) cells.get(part.cell)?.add(part);
  const reference = cells.get(referenceCell(plan.numInferenceSteps).id);
  if (!reference || reference.images === 0) {
    throw new FemoError("E_OPTION", "study: expected uncached images, found none: run the study first");
  }
  const wanted = new Map<string, GaussianFit | undefined>();
  for (const layer of reference.layers) wanted.set(layer, populations(layer) ?? (await reference.fit(layer)));
  const rows: StudyRow[] = [];
  for (const sums of cells.values()) if (sums.images > 0) rows.push(await sums.row(reference, wanted));
  return rows;
}

/** What parts of a cell add up to. */
class CellSums {
  readonly #cell: StudyCell;
  readonly #parts = new Map<number, Omit<StudyPart, "features">>();
  readonly #layers = new Map<string, LayerFeatures>();

  constructor(cell: StudyCell) {
    this.#cell = cell;
  }

  get images(): number {
    return [...this.#parts.values()].reduce((sum, { count }) => sum + count, 0);
  }

  get layers(): readonly string[] {
    return [...this.#layers.keys()];
  }

  add({ features, ...part }: StudyPart): void {
    if (this.#parts.has(part.first)) return; // two folders that are merged may both have it
    this.#parts.set(part.first, part);
    for (const [layer, text] of Object.entries(features)) {
      const own = this.#layers.get(layer) ?? new LayerFeatures();
      this.#layers.set(layer, own);
      for (const row of unpackRows(text, part.count)) own.add(row);
    }
  }

  async fit(layer: string): Promise<GaussianFit | undefined> {
    return this.#layers.get(layer)?.fit();
  }

  async row(reference: CellSums, wanted: ReadonlyMap<string, GaussianFit | undefined>): Promise<StudyRow> {
    const parts = [...this.#parts.values()].sort((a, b) => a.first - b.first);
    const shared = parts.filter(({ first }) => reference.#parts.has(first));
    const theirs = shared.map(({ first }) => reference.#parts.get(first) as StudyPart);
    const flops = (of: readonly Pick<StudyPart, "cost">[]) => of.reduce((sum, { cost }) => sum + cost.flops, 0);
    const ratios = shared.map(({ cost }) => cost.referenceMs / cost.durationMs);
    const frechet: Record<string, number> = {};
    for (const [layer, population] of wanted) {
      const own = await this.fit(layer);
      if (own && population) frechet[layer] = (await frechetDistance(own, population)).value;
    }
    const fullSteps = parts.flatMap(({ cost }) => cost.fullSteps);
    return {
      cell: this.#cell,
      images: this.images,
      reference: qualities(
        parts.map(({ reference }) => reference),
        Number.POSITIVE_INFINITY,
      ),
      converged: qualities(
        parts.map(({ converged }) => converged),
        Number.POSITIVE_INFINITY,
      ),
      scores: qualities(
        parts.map(({ scores }) => scores),
        Number.NaN,
      ),
      frechet,
      fullSteps: fullSteps.reduce((sum, value) => sum + value, 0) / fullSteps.length,
      flopsSpeedup: flops(theirs) / flops(shared),
      measuredSpeedup: {
        median: qualityOf(ratios).median,
        least: Math.min(...ratios),
        most: Math.max(...ratios),
      },
      stateBytes: Math.max(...parts.map(({ cost }) => cost.stateBytes)),
    };
  }
}

/** Features of a layer: as they are while they are fewer than they are long, which needs no covariance, then as sums. */
class LayerFeatures {
  #rows: Float32Array[] = [];
  #sums: MomentSums | undefined;

  add(row: Float32Array): void {
    if (this.#sums) {
      this.#sums.add(row);
      return;
    }
    this.#rows.push(row);
    if (this.#rows.length <= row.length) return;
    this.#sums = new MomentSums(this.#rows[0] as Float32Array);
    for (const kept of this.#rows) this.#sums.add(kept);
    this.#rows = [];
  }

  async fit(): Promise<GaussianFit | undefined> {
    if (this.#sums) return fitMoments(this.#sums.moments());
    return this.#rows.length > 1 ? fitFeatures(this.#rows) : undefined;
  }
}

/** @param missing what null stands for */
function qualities(parts: readonly StudyPart["scores"][], missing: number): Record<string, Quality> {
  const names = [...new Set(parts.flatMap((part) => Object.keys(part)))];
  const entries = names.flatMap((name) => {
    const values = parts.flatMap((part) => part[name] ?? []).map((value) => value ?? missing);
    const known = values.filter((value) => !Number.isNaN(value));
    return known.length > 0 ? [[name, qualityOf(known)] as const] : [];
  });
  return Object.fromEntries(entries);
}

/** Rows that no other beats: none is at least as fast and as good, and in one of both better. */
export function paretoFront<Row>(
  rows: readonly Row[],
  speedOf: (row: Row) => number,
  goodnessOf: (row: Row) => number,
): Row[] {
  const front: Row[] = [];
  for (const row of rows.toSorted((a, b) => speedOf(b) - speedOf(a) || goodnessOf(b) - goodnessOf(a))) {
    const best = front.at(-1);
    if (!best || goodnessOf(row) > goodnessOf(best)) front.push(row);
  }
  return front;
}

const LIKENESS = ["mean", "median", "tenthPercentile"] as const;

/** The rows as comma-separated values: a line each, after one of headings. */
export function studyCsv(rows: readonly StudyRow[]): string {
  const names = (of: "reference" | "converged" | "scores" | "frechet") => [
    ...new Set(rows.flatMap((row) => Object.keys(row[of]))),
  ];
  const digits = (value: number | undefined): string =>
    value === undefined ? "" : Number.isFinite(value) ? String(Number(value.toPrecision(6))) : "inf";
  const columns: (readonly [heading: string, cell: (row: StudyRow) => string])[] = [
    ["id", ({ cell }) => cell.id],
    ["method", ({ cell }) => cell.group],
    ["series", ({ cell }) => cell.series],
    ["level", ({ cell }) => cell.level ?? ""],
    ["images", ({ images }) => String(images)],
    ["full_steps", (row) => digits(row.fullSteps)],
    ["flops_speedup", (row) => digits(row.flopsSpeedup)],
    ["measured_speedup", (row) => digits(row.measuredSpeedup.median)],
    ["measured_least", (row) => digits(row.measuredSpeedup.least)],
    ["measured_most", (row) => digits(row.measuredSpeedup.most)],
    ["state_bytes", ({ stateBytes }) => String(stateBytes)],
    ...(["reference", "converged"] as const).flatMap((of) =>
      names(of).flatMap((name) => [
        ...LIKENESS.map(
          (how) => [`${of}_${name}_${snake(how)}`, (row: StudyRow) => digits(row[of][name]?.[how])] as const,
        ),
        [`${of}_${name}_standard_error`, (row: StudyRow) => digits(row[of][name]?.standardError)] as const,
      ]),
    ),
    ...names("scores").map((name) => [snake(name), (row: StudyRow) => digits(row.scores[name]?.mean)] as const),
    ...names("frechet").map(
      (name) => [`frechet_${snake(name)}`, (row: StudyRow) => digits(row.frechet[name])] as const,
    ),
    ["settings", ({ cell }) => JSON.stringify(cell.request)],
  ];
  const lines = rows.map((row) => columns.map(([, cell]) => cell(row)));
  return `${csvText([columns.map(([heading]) => heading), ...lines])}\n`;
}

const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
