import type { RgbImage } from "../../images/index.js";
import type { DiffusionPipeline, GenerateOptions, GenerationResult } from "../../pipelines/index.js";
import { seedAfter } from "../../samplers/index.js";
import { convergedRequest } from "../converged.js";
import { expectedCost } from "../expected-cost.js";
import { uncachedStepMs } from "../step-time.js";
import { warmUp } from "../warm-up.js";
import { type Judge, likenesses } from "./judge.js";
import { packRows, type StudyPart, toPartValues } from "./part.js";
import { referenceCell, type StudyCell, type StudyPlan, type StudySubject, withoutSampling } from "./plan.js";

/** Which uncached images: those of the model's own steps, or of the converged sampler. */
export type Wanted = "reference" | "converged";

/** Where a study's parts and images are kept. Another process may keep others there. */
export interface StudyStore {
  /** Whether the part of a cell that begins with this image is there. */
  has(cell: string, first: number): Promise<boolean>;
  /** Keeps it whole or not at all. */
  add(part: StudyPart): Promise<void>;
  /** Images that were kept, in the order of the study, from this one on; undefined if one of them is not there. */
  images(of: Wanted, first: number, count: number): Promise<RgbImage[] | undefined>;
  /** Keeps images to which others are compared, for `images`. */
  keepImages(of: Wanted, first: number, images: readonly RgbImage[]): Promise<void>;
  /** Keeps some images of a cell to be looked at. */
  keepSamples(cell: string, images: readonly RgbImage[]): Promise<void>;
}

/** What of a study to run. */
export interface RunStudyOptions {
  readonly store: StudyStore;
  readonly judge?: Judge | undefined;
  /** Images from one to before another: a shard. */
  readonly from: number;
  readonly to: number;
  /** Images of each cell that are kept to be looked at, among those of the first part. Default 6. */
  readonly samples?: number;
  /** Images that are drawn at once. Default: 8. */
  readonly batchSize?: number;
  readonly signal?: AbortSignal;
  /**
   * Called as the work goes on.
   * @param done share of the work, by its expected cost
   */
  readonly onProgress?: (text: string, done: number) => void;
}

const SAMPLES = 6;
const BATCH = 8;
/** Uncached steps by which a cell is timed. */
const PROBE_STEPS = 3;

/**
 * Draws and measures what is not kept yet of the images of a range, part by part: the uncached ones, and each cell. What
 * was kept is not drawn again, and nothing is kept half.
 * @throws FemoError as `generate`; the signal's reason if it was aborted
 */
export async function runStudy(pipeline: DiffusionPipeline, plan: StudyPlan, options: RunStudyOptions): Promise<void> {
  const { store, from, to, onProgress } = options;
  const costs = new Map(plan.cells.map((cell) => [cell.id, costOf(pipeline, plan, cell)]));
  const parts: Todo[] = [];
  for (const range of partsOf(plan, from, to)) {
    const cells: StudyCell[] = [];
    for (const cell of plan.cells) if (!(await store.has(cell.id, range.first))) cells.push(cell);
    if (cells.length > 0) parts.push({ ...range, cells });
  }
  const workOf = ({ cells, count }: Todo): number => {
    const isNew = cells.length === plan.cells.length; // else its converged images are there
    return (
      count * cells.reduce((sum, { id }) => sum + (costs.get(id) as number), isNew ? (plan.convergedSteps ?? 0) : 0)
    );
  };
  const total = parts.reduce((sum, part) => sum + workOf(part), 0);

  const warm = new Set<string>();
  let spent = 0;
  const draw: Draw = async (text, range, request, cost) => {
    const { batchSize = BATCH, signal } = options;
    const { numInferenceSteps = plan.numInferenceSteps } = request;
    if (!warm.has(text)) await warmUp(pipeline, { ...request, ...shown(pipeline, plan, 0, 1), numInferenceSteps });
    warm.add(text); // graphs are loaded and run before they are timed first
    let within = 0;
    const drawn = await pipeline.generate({
      ...{ ...request, ...shown(pipeline, plan, range.first, range.count), batchSize },
      ...(signal && { signal }),
      onStep({ images, numInferenceSteps }) {
        within += (images.length * cost) / numInferenceSteps; // of a step that a guard has repeated twice
        onProgress?.(text, Math.min(1, (spent + within) / total));
      },
    });
    spent += range.count * cost;
    return drawn;
  };
  for (const part of parts) await runPart(pipeline, plan, part, options, draw, costs);
}

interface Range {
  readonly first: number;
  readonly count: number;
}

/** A part, and the cells that are not kept of it. */
interface Todo extends Range {
  readonly cells: readonly StudyCell[];
}

/** @param cost of an image, in full steps */
type Draw = (text: string, range: Range, request: GenerateOptions, cost: number) => Promise<GenerationResult>;

async function runPart(
  pipeline: DiffusionPipeline,
  plan: StudyPlan,
  { cells, ...range }: Todo,
  { store, judge, samples = SAMPLES, batchSize = BATCH }: RunStudyOptions,
  draw: Draw,
  costs: ReadonlyMap<string, number>,
): Promise<void> {
  const reference = referenceCell(plan.numInferenceSteps);
  const requestOf = ({ request }: StudyCell): GenerateOptions => ({
    ...withoutSampling(plan.drawing, request),
    ...request,
  });
  const drawCell = (cell: StudyCell) => draw(cell.series, range, requestOf(cell), costs.get(cell.id) as number);
  const kept = async (of: Wanted, drawn: () => Promise<readonly RgbImage[]>): Promise<readonly RgbImage[]> => {
    const found = await store.images(of, range.first, range.count);
    if (found) return found;
    const images = await drawn();
    await store.keepImages(of, range.first, images);
    return images;
  };
  const { convergedSteps, numInferenceSteps } = plan;
  const converged =
    convergedSteps === undefined
      ? undefined
      : await kept("converged", async () => {
          const request = await convergedOf(pipeline, plan, convergedSteps);
          return (await draw("Converged", range, request, convergedSteps)).images;
        });

  const add = async (
    cell: StudyCell,
    { images, report }: GenerationResult,
    wanted?: readonly RgbImage[],
    referenceMs?: number,
  ) => {
    const against = async (others: readonly RgbImage[] | undefined) =>
      toPartValues(others ? { ...likenesses(images, others), ...(await judge?.distance(images, others)) } : {});
    const durationMs = report.conditioningMs + report.stepsMs;
    const judged = (await judge?.judge(images, subjectsOf(plan, range))) ?? [];
    if (range.first === 0 && samples > 0) await store.keepSamples(cell.id, images.slice(0, samples));
    const rows = (layer: string) => judged.map(({ features }) => features[layer] as Float32Array);
    await store.add({
      ...{ cell: cell.id, ...range },
      reference: await against(wanted),
      converged: await against(converged),
      scores: toPartValues(byName(judged.map(({ scores }) => scores))),
      features: Object.fromEntries((judge?.layers ?? []).map((layer) => [layer, packRows(rows(layer))])),
      cost: {
        flops: report.flops.done,
        fullSteps: report.fullSteps.map(({ length }) => length),
        ...{ durationMs, referenceMs: referenceMs ?? durationMs, stateBytes: report.stateBytes },
      },
    });
  };

  if (cells.some(({ id }) => id === reference.id)) {
    const drawn = await drawCell(reference);
    await store.keepImages("reference", range.first, drawn.images);
    await add(reference, drawn);
  }
  const wanted = await kept("reference", async () => (await drawCell(reference)).images);
  for (const cell of cells) {
    if (cell.id === reference.id) continue;
    const stepMs = await uncachedStepMs(
      pipeline,
      { ...plan.drawing, ...shown(pipeline, plan, 0, Math.min(batchSize, range.count)), numInferenceSteps },
      { steps: PROBE_STEPS },
    );
    await add(cell, await drawCell(cell), wanted, stepMs * numInferenceSteps * range.count);
  }
}

/** The parts of a range of images; they begin at multiples of the part's size, whatever the range. */
export function partsOf({ partSize }: Pick<StudyPlan, "partSize">, from: number, to: number): Range[] {
  const parts: Range[] = [];
  for (let first = from; first < to; ) {
    const end = Math.min(to, (Math.floor(first / partSize) + 1) * partSize);
    parts.push({ first, count: end - first });
    first = end;
  }
  return parts;
}

const subjectsOf = ({ subjects }: StudyPlan, { first, count }: Range): StudySubject[] =>
  Array.from({ length: count }, (_, i) => subjects[(first + i) % subjects.length] as StudySubject);

/** What these images show, and from which noise. */
function shown(pipeline: DiffusionPipeline, plan: StudyPlan, first: number, count: number): GenerateOptions {
  const subjects = subjectsOf(plan, { first, count }).map(({ subject }) => subject);
  return { [pipeline.subjectOption]: subjects, seed: seedAfter(plan.seed, first) };
}

/** The request of the images to which the reference's sampler converges. */
const convergedOf = (pipeline: DiffusionPipeline, plan: StudyPlan, steps: number): Promise<GenerateOptions> =>
  convergedRequest(pipeline, { ...plan.drawing, ...shown(pipeline, plan, 0, 1) }, steps);

/** What an image of all cells and references is expected to cost, in full steps. */
export const studyCost = (pipeline: DiffusionPipeline, plan: StudyPlan): number =>
  plan.cells.reduce((sum, cell) => sum + costOf(pipeline, plan, cell), plan.convergedSteps ?? 0);

/** Of an image, in full steps. */
function costOf(pipeline: DiffusionPipeline, plan: StudyPlan, { request }: StudyCell): number {
  const whole = { ...withoutSampling(plan.drawing, request), ...request, ...shown(pipeline, plan, 0, 1) };
  return expectedCost(pipeline, whole);
}

/** Of records with the same names: for each name, the values. */
const byName = (records: readonly Readonly<Record<string, number>>[]): Record<string, number[]> =>
  Object.fromEntries(
    [...new Set(records.flatMap((record) => Object.keys(record)))].map((name) => [
      name,
      records.map((record) => record[name] ?? Number.NaN),
    ]),
  );
