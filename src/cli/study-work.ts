import { cpus } from "node:os";
import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { FemoError } from "../errors.js";
import { type MetricNetworkOptions, MetricNetworks } from "../metrics/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";
import {
  comparable,
  type Judge,
  recordTrajectories,
  runStudy,
  type StudyCell,
  type StudyPlan,
  studyCost,
  studyCsv,
  studyHtml,
  studyRows,
  trajectoryFigures,
  uncachedStepMs,
} from "../studies/index.js";
import { chartJs } from "./chart-js.js";
import { durationText } from "./duration.js";
import { writeFiles } from "./files.js";
import { type CommandContext, type CommonFlags, integer, listOf, openPipeline, requestOf } from "./options.js";
import { print } from "./output.js";
import { type Progress, progressLine } from "./progress.js";
import { StudyFolder } from "./study-folder.js";

/** What all studies of many images are told. */
export interface StudyFlags extends CommonFlags {
  out: string;
  images?: number;
  shard: Shard;
  partSize?: number;
  report?: boolean;
  merge?: string[];
}

/** Which part of all images: one of so many. */
interface Shard {
  readonly index: number;
  readonly of: number;
}

/** Adds the options of studies of many images. @param images how many there are, in words @param parts and in a part */
export const addStudyOptions = (command: Command, images: string, parts: string): Command =>
  command
    .option("--out <folder>", "where the study is kept; run again, it goes on", "femo-study")
    .option("--images <n>", `in all (default: ${images})`, integer)
    .option("--shard <i/n>", "draw one of so many equal parts of the images; others may draw the others", shard, {
      index: 1,
      of: 1,
    })
    .option(
      "--part-size <n>",
      `images that are drawn and kept together, of which there are whole ones (default: ${parts})`,
      integer,
    )
    .option("--report", "draw nothing: make the report of what there is")
    .option("--merge <folders>", "parts that other machines have drawn, for the report", listOf(String));

/** A study that a command has prepared. */
export interface StudyJob {
  readonly flags: StudyFlags;
  readonly context: CommandContext;
  readonly pipeline: DiffusionPipeline;
  readonly judge: Judge | undefined;
  readonly progress: Progress;
  /** What its images are. */
  readonly base: Omit<StudyPlan, "cells">;
  readonly images: number;
  /** What to compare, if the folder has no plan yet. */
  readonly cells: (onProgress: Progress["show"]) => Promise<StudyCell[]>;
  /** Levels of which there are to be figures. */
  readonly figures: readonly string[];
  /** Say what it is going to take, and end. */
  readonly estimate?: boolean | undefined;
}

/** What a command needs to prepare a study. */
export type StudyTools = Pick<StudyJob, "context" | "pipeline" | "progress"> & { readonly networks: MetricNetworks };

/** Opens the model that the flags name and what measures its images, and closes both. */
export async function withStudyTools(
  flags: StudyFlags,
  context: CommandContext,
  measuring: Pick<MetricNetworkOptions, "weights" | "anyWeights">,
  work: (tools: StudyTools) => Promise<void>,
): Promise<void> {
  const { signal } = context;
  const { cacheDir, threads } = flags;
  const progress = progressLine(flags.quiet);
  const pipeline = await openPipeline(flags, signal);
  const networks = await MetricNetworks.open({ ...measuring, cacheDir, threads, signal });
  try {
    await work({ context, pipeline, progress, networks });
  } finally {
    progress.clear();
    await networks.close();
    await pipeline.close();
  }
}

/** What images of a study are that the common flags tell. */
export function imagesOf(
  flags: StudyFlags,
  pipeline: DiffusionPipeline,
): Pick<StudyPlan, "model" | "dtype" | "seed" | "numInferenceSteps" | "drawing"> {
  const { numInferenceSteps = pipeline.defaults.numInferenceSteps, seed, ...request } = requestOf(flags);
  const { numImagesPerPrompt: _, batchSize: __, ...drawing } = request;
  return { model: pipeline.name, dtype: pipeline.dtype, seed: Number(seed), numInferenceSteps, drawing };
}

/** One image of a study, of which to time a step. */
export const stepRequest = (
  pipeline: DiffusionPipeline,
  { drawing, numInferenceSteps, subjects }: Pick<StudyPlan, "drawing" | "numInferenceSteps" | "subjects">,
  signal: AbortSignal,
): GenerateOptions => ({
  ...{ ...drawing, numInferenceSteps, signal },
  [pipeline.subjectOption]: subjects.slice(0, 1).map(({ subject }) => subject),
});

/** Draws what is missing of a study and makes its report. */
export async function workOnStudy(job: StudyJob): Promise<void> {
  const { flags, pipeline, judge, progress, images, context, base } = job;
  const { signal, version } = context;
  const folder = new StudyFolder(flags.out);
  const plan = await planOf(job, folder);
  if (!flags.report) {
    const range = rangeOf(flags.shard, images, plan.partSize);
    if (!flags.quiet || job.estimate) await tellCost(job, plan, range);
    if (job.estimate) return;
    const { batchSize } = flags;
    await runStudy(pipeline, plan, {
      ...{ store: folder, judge, ...range, signal },
      ...(batchSize !== undefined && { batchSize }),
      onProgress: progress.show,
    });
    // Others have the figures from the first shard.
    if (flags.shard.index === 1) for (const level of job.figures) await record(job, plan, level, folder);
  }
  progress.show("making the report", 1);
  const folders = [folder, ...(flags.merge ?? []).map((path) => new StudyFolder(path))] as const;
  const facts = {
    Command: ["femo", ...process.argv.slice(2)].join(" "),
    Version: `femo ${version}, Node ${process.version}`,
    Machine: cpus()[0]?.model ?? "CPU",
    Seed: String(base.seed),
  };
  const paths = await report(plan, folders, judge, facts, signal);
  progress.clear();
  if (!flags.quiet) print(paths.map(([what, path]) => `${what}: ${path}`).join("\n"));
}

/** What is about to be done, by a step that is measured here. */
async function tellCost(
  { pipeline, base, progress, context: { signal } }: StudyJob,
  plan: StudyPlan,
  { from, to }: { from: number; to: number },
): Promise<void> {
  const stepMs = await uncachedStepMs(pipeline, stepRequest(pipeline, base, signal));
  const steps = studyCost(pipeline, plan);
  progress.clear();
  process.stderr.write(
    `${plan.cells.length} ways to draw, ${to - from} images here: ${Math.round(steps)} full steps for each image, of ` +
      `${stepMs.toFixed(0)} ms: about ${durationText((stepMs * steps * (to - from)) / 1000)} if nothing is there yet.\n`,
  );
}

const FIGURE_IMAGES = 4;

/** Records the paths of a feature, unless they are there. */
async function record(
  { pipeline, progress, context: { signal } }: StudyJob,
  plan: StudyPlan,
  level: string,
  folder: StudyFolder,
): Promise<void> {
  if (folder.trajectories(level)) return;
  const { drawing, seed, numInferenceSteps } = plan;
  const subjects = plan.subjects.slice(0, FIGURE_IMAGES).map(({ subject }) => subject);
  let done = 0; // steps of all images
  const recorded = await recordTrajectories(pipeline, {
    ...{ ...drawing, [pipeline.subjectOption]: subjects, level, seed, numInferenceSteps, signal },
    onStep: ({ images }) => {
      done += images.length;
      progress.show(`recording features at ${level}`, done / (numInferenceSteps * subjects.length));
    },
  });
  await folder.keepTrajectories(recorded);
}

/** Makes the report of the parts that all ways have, or of what there is before there are such. @returns what was written where */
async function report(
  plan: StudyPlan,
  folders: readonly [StudyFolder, ...StudyFolder[]],
  judge: Judge | undefined,
  facts: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<(readonly [what: string, path: string])[]> {
  for (const other of folders.slice(1)) checkSame(plan, other.plan(), other.path);
  const kept = plan.cells.flatMap(({ id: cell }) =>
    folders.flatMap((folder) => folder.firsts(cell).map((first) => ({ cell, first, folder }))),
  );
  const compared = comparable(plan, kept);
  const parts = function* () {
    for (const { folder, cell, first } of compared) yield folder.part(cell, first);
  };
  const rows = await studyRows(plan, parts(), (layer) => judge?.population(layer));
  const [{ path }] = folders;
  const samples = (cell: string) => folders.map((one) => one.samples(cell)).find(({ length }) => length > 0) ?? [];
  const figures = folders.flatMap((one) => one.allTrajectories()).flatMap(trajectoryFigures);
  const left = kept.length - compared.length;
  const told = {
    ...facts,
    ...(left > 0 && { "Left out": `${left} parts of images that not all ways have drawn yet` }),
  };
  const files = [
    ["Report", join(path, "report.html"), studyHtml({ plan, rows, samples, chartJs: chartJs(), facts: told, figures })],
    ["Table", join(path, "table.csv"), studyCsv(rows)],
    [
      "JSON",
      join(path, "rows.json"),
      `${JSON.stringify({ facts: told, plan, rows: rows.map(withoutValues) }, null, 1)}\n`,
    ],
  ] as const;
  await writeFiles(
    files.map(([, path, content]) => ({ path, content })),
    signal,
  );
  return files.map(([what, path]) => [what, path]);
}

/** Values of single images are in the parts. */
const withoutValues = (row: object): unknown =>
  JSON.parse(
    JSON.stringify(row, (key, value) => (key === "values" ? undefined : value === Infinity ? "Infinity" : value)),
  );

/** The folder's plan if it has one, which must be of the same images; a new one if not. */
async function planOf({ flags, base, cells, progress }: StudyJob, folder: StudyFolder): Promise<StudyPlan> {
  const existing = folder.plan();
  if (existing) {
    const partSize = flags.partSize ?? existing.partSize;
    checkSame({ ...existing, ...base, partSize }, existing, folder.path);
    return existing;
  }
  if (flags.report) throw new FemoError("E_OPTION", `--out: ${folder.path} has no study to report on`);
  return folder.begin({ ...base, cells: await cells(progress.show) });
}

/** @throws FemoError E_OPTION naming what differs in what two plans say of the images */
function checkSame(plan: StudyPlan, other: StudyPlan | undefined, path: string): void {
  if (!other) throw new FemoError("E_OPTION", `${path}: expected a study, found no plan.json in it`);
  const { cells: _, ...images } = plan;
  const { cells: __, ...others } = other;
  const differing = [...new Set([...Object.keys(images), ...Object.keys(others)])].find(
    (key) => JSON.stringify(images[key as keyof typeof images]) !== JSON.stringify(others[key as keyof typeof others]),
  );
  if (differing === undefined) return;
  throw new FemoError(
    "E_OPTION",
    `${path}: it is a study of other images: ${differing} differs. Say what it was begun with, or choose another folder with --out`,
  );
}

/** Whole parts for each shard, the last one too: images that are asked for later begin where these end. */
function rangeOf({ index, of }: Shard, images: number, partSize: number): { from: number; to: number } {
  const parts = Math.ceil(images / partSize);
  const at = (i: number): number => Math.floor((i * parts) / of) * partSize;
  return { from: at(index - 1), to: at(index) };
}

function shard(value: string): Shard {
  const [, index, of] = /^(\d+)\/(\d+)$/.exec(value)?.map(Number) ?? [];
  if (index === undefined || of === undefined || index < 1 || index > of) {
    throw new InvalidArgumentError('Expected one of so many, such as "1/4".');
  }
  return { index, of };
}
