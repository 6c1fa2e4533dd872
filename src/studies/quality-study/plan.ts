import { FemoError } from "../../errors.js";
import {
  type CacheMethod,
  type CacheOptions,
  cacheMethods,
  cacheSettings,
  defaultPresets,
  knobOf,
  methodTitle,
} from "../../methods/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../../pipelines/index.js";
import { processOf, type SamplerOption, type TimestepSpacing } from "../../samplers/index.js";
import { checkGenerate } from "../check-generate.js";
import { stepsAtCost } from "../expected-cost.js";
import { type Rival, rivalsOf, rivalWords } from "../rivals.js";
import { settingsAtCost } from "../settings-at-cost.js";
import { isAccepted, recommendedMethods, runsOn } from "../variants.js";

/** What an image of a study shows, and by which labels a classifier should call it, if that is known. */
export interface StudySubject {
  readonly subject: string | number;
  readonly labels?: Readonly<Record<string, string>>;
}

/** What a way to draw says of a request; the rest is the study's. */
export interface CellRequest {
  readonly numInferenceSteps: number;
  readonly cache?: CacheOptions;
  readonly sampler?: SamplerOption;
  readonly timestepSpacing?: TimestepSpacing;
}

/** One way to draw, at one setting. */
export interface StudyCell {
  /** Unique, and the same whenever the same is planned. */
  readonly id: string;
  /** A method or sampler with all of its settings but the one that trades cost for quality: a curve. */
  readonly series: string;
  /** The method or sampler, of which there may be several series. */
  readonly group: string;
  /** Where features are kept. */
  readonly level?: string;
  readonly request: CellRequest;
}

/** How all images of a study are drawn. */
export type StudyDrawing = Pick<
  GenerateOptions,
  "guidanceScale" | "trueCfgScale" | "guidanceChannels" | "height" | "width" | "sampler" | "timestepSpacing"
>;

/** Of what images: plain data, which fixes what every image of a study is. */
export interface StudyPlan {
  readonly model: string;
  readonly dtype: string;
  readonly seed: number;
  /** Of the uncached images that all others are compared with. */
  readonly numInferenceSteps: number;
  /** Of the converged sampler, if there is to be one. */
  readonly convergedSteps?: number;
  readonly drawing: StudyDrawing;
  /** Image i, of seed `seed` + i, shows subject i modulo their number. */
  readonly subjects: readonly StudySubject[];
  /** Images that are drawn, and kept in a file, together. */
  readonly partSize: number;
  readonly cells: readonly StudyCell[];
}

/** What to compare. What is left out is all there is. */
export interface CellOptions {
  readonly methods?: readonly CacheMethod[] | "all";
  readonly levels?: readonly string[];
  /** FLOPs speed-ups to which methods and rivals are set. Default: 2, 3, 4, 5, 7, 10. */
  readonly speedups?: readonly number[];
  /** Only the recommended methods, at the level that the model's presets have, at two costs, and the model's fitted solvers. */
  readonly quick?: boolean;
  readonly numInferenceSteps: number;
  readonly drawing: StudyDrawing;
  /** A few, on which methods that look at the images are set to a cost. */
  readonly subjects: readonly StudySubject[];
  readonly signal?: AbortSignal;
  /** Told of every method that comes next. */
  readonly onProgress?: (text: string, done: number) => void;
}

/** The uncached images, which are a cell like the others. */
export const referenceCell = (numInferenceSteps: number): StudyCell => ({
  ...{ id: "reference", series: "No cache", group: "No cache" },
  request: { numInferenceSteps },
});

/**
 * Every method that runs on the model, over its own knob, at every level, with the orders and momentums that it may have;
 * the rivals in as many steps as cost the same; placed schedules and fitted solvers that the model has.
 * @throws FemoError E_OPTION if an option is out of range; the signal's reason if it was aborted
 */
export async function studyCells(pipeline: DiffusionPipeline, options: CellOptions): Promise<StudyCell[]> {
  const { quick = false, numInferenceSteps, signal, onProgress } = options;
  const {
    methods = quick ? [...recommendedMethods, "calibrated"] : "all",
    speedups = quick ? [3, 5] : [2, 3, 4, 5, 7, 10],
  } = options;
  const wrong = speedups.find((speedup) => !(speedup >= 1 && speedup < Number.POSITIVE_INFINITY));
  if (wrong !== undefined) throw new FemoError("E_OPTION", `speedups: expected numbers of at least 1, found ${wrong}`);
  const named = methods === "all" ? cacheMethods.filter((method) => runsOn(pipeline, method)) : methods;
  const withKnobs = named.filter((name) => name !== "none" && name !== "calibrated");
  const series = withKnobs.flatMap((name) => seriesOf(pipeline, name, options));
  const cells: StudyCell[] = [referenceCell(numInferenceSteps)];
  for (const [i, one] of series.entries()) {
    for (const speedup of knobOf(one.cache.method) ? speedups : [1]) {
      signal?.throwIfAborted();
      onProgress?.(`planning ${one.series}`, i / series.length);
      const cache = knobOf(one.cache.method) ? await setTo(pipeline, one.cache, speedup, options) : one.cache;
      if (cache) cells.push(cellOf({ ...one, request: { cache, numInferenceSteps } }));
    }
  }
  cells.push(...placedCells(pipeline, named, numInferenceSteps), ...solverCells(pipeline, named));
  for (const rival of rivalsOf(processOf(pipeline.scheduler), quick)) {
    for (const speedup of speedups) {
      const cell = rivalCell(rival, stepsAtCost(numInferenceSteps, speedup));
      if ((await refusalOf(pipeline, cell.request, options)) === undefined) cells.push(cell);
    }
  }
  return distinct(cells);
}

/** Each once. */
export const distinct = (cells: readonly StudyCell[]): StudyCell[] => [
  ...new Map(cells.map((cell) => [cell.id, cell])).values(),
];

type Chosen = Exclude<CacheOptions, string>;
interface Series extends Pick<StudyCell, "series" | "group" | "level"> {
  readonly cache: Chosen;
}

/** A method with every choice of settings that is a curve of its own. */
function seriesOf(
  pipeline: DiffusionPipeline,
  method: Exclude<CacheMethod, "none" | "calibrated">,
  { levels, quick = false }: CellOptions,
): Series[] {
  const group = methodTitle(method);
  const preset = pipeline.presets[method] as Readonly<Record<string, unknown>>;
  const own = "granularity" in preset ? String(preset.granularity) : undefined;
  const all = own === undefined ? [undefined] : quick && !levels ? [own] : (levels ?? pipeline.levels);
  return all.flatMap((level) => {
    const at = level !== undefined ? { granularity: level } : {};
    const several = quick || level !== own ? [] : changesOf(method, preset);
    return [{}, ...several].flatMap((change) => {
      const cache = { method, ...at, ...change } as Chosen;
      if (!isAccepted(() => cacheSettings(cache, pipeline.presets, pipeline.levels))) return [];
      const words = Object.entries(change).map(([name, value]) => `${name} ${value}`);
      const title = [group, ...(level === undefined ? [] : [level]), ...words].join(", ");
      return [{ group, series: title, ...(level !== undefined && { level }), cache }];
    });
  });
}

/** Other orders, and the momentum that the paper has where the model's presets have another. */
function changesOf(method: Exclude<CacheMethod, "none">, preset: Readonly<Record<string, unknown>>): object[] {
  const paper = defaultPresets[method] as Readonly<Record<string, unknown>>;
  const orders = "order" in preset ? [1, 2, 3].filter((order) => order !== preset.order) : [];
  const betas = ["beta"].filter((name) => paper[name] !== undefined && paper[name] !== preset[name]);
  return [...orders.map((order) => ({ order })), ...betas.map((name) => ({ [name]: paper[name] }))];
}

/** The method at this cost; undefined where it does not run at all with these settings. */
async function setTo(
  pipeline: DiffusionPipeline,
  cache: Chosen,
  speedup: number,
  { drawing, subjects, numInferenceSteps, signal }: CellOptions,
): Promise<CacheOptions | undefined> {
  const few = { [pipeline.subjectOption]: subjects.slice(0, 2).map(({ subject }) => subject) };
  try {
    const request = { ...drawing, ...few, numInferenceSteps, speedup, ...(signal && { signal }) };
    const { settings } = await settingsAtCost(pipeline, cache, request);
    return ("measure" in settings ? { ...settings, measure: false } : settings) as CacheOptions;
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof FemoError && error.code !== "E_RUNTIME") return undefined;
    throw error;
  }
}

/** Full steps that were placed on the model, for the method that they were placed for. */
function placedCells(pipeline: DiffusionPipeline, methods: readonly string[], numInferenceSteps: number): StudyCell[] {
  if (!methods.includes("hindsight")) return [];
  const placed = pipeline.schedules.filter((one) => one.numInferenceSteps === numInferenceSteps);
  const group = methodTitle("hindsight");
  return placed.flatMap(({ fullSteps }) =>
    fullSteps.map((steps) =>
      cellOf({
        ...{ group, series: `${group}, placed`, level: "x0" },
        request: { cache: { method: "hindsight", fullSteps: steps, measure: false }, numInferenceSteps },
      }),
    ),
  );
}

function solverCells(pipeline: DiffusionPipeline, methods: readonly string[]): StudyCell[] {
  if (!methods.includes("calibrated")) return [];
  const group = methodTitle("calibrated");
  return pipeline.solvers.map(({ timesteps: { length }, measured: { target } }) =>
    cellOf({
      ...{ group, series: target === "reference" ? `${group}, to the uncached images` : group },
      request: { cache: { method: "calibrated", fullSteps: length, target }, numInferenceSteps: length },
    }),
  );
}

function rivalCell(rival: Rival, numInferenceSteps: number): StudyCell {
  const { sampler, timestepSpacing } = rival;
  const [title, ...words] = rivalWords(rival);
  const group = `Fewer ${title} steps`;
  return cellOf({
    ...{ group, series: [group, ...words].join(", ") },
    request: { sampler, ...(timestepSpacing && { timestepSpacing }), numInferenceSteps },
  });
}

/** The cells that the model can draw. @param tell of each other one, and why */
export async function withoutRefused(
  pipeline: DiffusionPipeline,
  cells: readonly StudyCell[],
  options: Pick<CellOptions, "drawing" | "subjects">,
  tell: (cell: StudyCell, why: string) => void,
): Promise<StudyCell[]> {
  const kept: StudyCell[] = [];
  for (const cell of cells) {
    const why = await refusalOf(pipeline, cell.request, options);
    if (why === undefined) kept.push(cell);
    else tell(cell, why);
  }
  return kept;
}

/** Why the model does not draw so; undefined if it does. */
async function refusalOf(
  pipeline: DiffusionPipeline,
  request: CellRequest,
  { drawing, subjects }: Pick<CellOptions, "drawing" | "subjects">,
): Promise<string | undefined> {
  const what = { [pipeline.subjectOption]: subjects.slice(0, 1).map(({ subject }) => subject) };
  return checkGenerate(pipeline, { ...withoutSampling(drawing, request), ...what, ...request }).then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof FemoError && error.code === "E_OPTION") return error.message;
      throw error;
    },
  );
}

/** A cell's own sampler comes with its own spacing. */
export const withoutSampling = (drawing: StudyDrawing, { sampler }: CellRequest): StudyDrawing => {
  if (sampler === undefined) return drawing;
  const { sampler: _, timestepSpacing: __, ...others } = drawing;
  return others;
};

/** With its id. */
export function cellOf(cell: Omit<StudyCell, "id">): StudyCell {
  const words = cell.series.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  return { id: `${words}-${hashOf(JSON.stringify(cell.request))}`, ...cell };
}

/** FNV-1a of a text in 32 bits, in hexadecimal digits: it tells a few settings of one series apart. */
function hashOf(text: string): string {
  let hash = 0x811c9dc5;
  for (const letter of text) hash = Math.imul(hash ^ (letter.codePointAt(0) as number), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, "0");
}
