import { cpus } from "node:os";
import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { FemoError } from "../errors.js";
import { type ImageClassifier, type LabelledPrompt, MetricNetworks } from "../metrics/index.js";
import type { CacheMethod, DiffusionPipeline } from "../pipelines/index.js";
import {
  type CellOptions,
  classifierJudge,
  type Judge,
  recordTrajectories,
  runStudy,
  type StudyPlan,
  type StudySubject,
  studyCells,
  studyCost,
  studyCsv,
  studyHtml,
  studyRows,
  trajectoryFigures,
} from "../studies/index.js";
import { chartJs } from "./chart-js.js";
import { writeFiles } from "./files.js";
import {
  addDrawing,
  addSubjects,
  type CommandContext,
  type CommonFlags,
  cacheMethod,
  integer,
  listOf,
  number,
  openPipeline,
  requestOf,
  type SubjectFlags,
} from "./options.js";
import { print } from "./output.js";
import { type Progress, progressLine } from "./progress.js";
import { StudyFolder } from "./study-folder.js";

interface QualityFlags extends CommonFlags, SubjectFlags {
  out: string;
  images?: number;
  shard: Shard;
  quick?: boolean;
  methods?: CacheMethod[] | "all";
  levels?: string[];
  speedups?: number[];
  convergedSteps?: number;
  classifier?: string;
  partSize: number;
  figures?: string[];
  report?: boolean;
  merge?: string[];
}

/** Which part of all images: one of so many. */
interface Shard {
  readonly index: number;
  readonly of: number;
}

/** The embedded models, and the classifiers of what they draw. */
const CLASSIFIERS: Readonly<Record<string, string>> = {
  "avatars-dit": "avatars-classifier",
  "avatars-flux": "avatars-flux-classifier",
  "avatars-sd": "avatars-flux-classifier",
};

/** `femo study quality`: every method over its own knob at every level, beside its rivals, on many images. */
export const qualityCommand = (context: CommandContext): Command =>
  addSubjects(
    addDrawing(new Command("quality"), { images: "1", batchSize: "8" }),
    "the classes, or the classifier's held-out prompts",
  )
    .description("measure every method and its rivals on many images: a table, JSON, and an HTML report")
    .option("--out <folder>", "where the study is kept; run again, it goes on", "femo-study")
    .option("--images <n>", "in all (default: 256, quick: 18)", integer)
    .option("--shard <i/n>", "draw one of so many equal parts of the images; others may draw the others", shard, {
      index: 1,
      of: 1,
    })
    .option("--quick", "a minute: the recommended methods at two costs")
    .option("--methods <list>", 'caching methods, or "all"', (value) =>
      value.trim() === "all" ? "all" : listOf(cacheMethod)(value),
    )
    .option("--levels <list>", "where features are kept (default: everywhere)", listOf(String))
    .option("--speedups <list>", "costs to which methods are set (default: 2,3,4,5,7,10)", listOf(number))
    .option("--converged-steps <n>", "of the converged images; 0 for none (default: 200, quick: 0)", integer)
    .option("--classifier <name>", "folder of a classifier of the images, or none (default: that of an embedded model)")
    .option("--part-size <n>", "images that are drawn and kept together", integer, 32)
    .option(
      "--figures <levels>",
      "where paths of features are recorded for figures of forecasts (default: output, quick: nowhere)",
      listOf(String),
    )
    .option("--report", "draw nothing: make the report of what there is")
    .option("--merge <folders>", "parts that other machines have drawn, for the report", listOf(String))
    .action((flags: QualityFlags) => run(flags, context));

async function run(flags: QualityFlags, { version, signal }: CommandContext): Promise<void> {
  const folder = new StudyFolder(flags.out);
  const progress = progressLine(flags.quiet);
  const pipeline = await openPipeline(flags, signal);
  const networks = await MetricNetworks.open({ signal, ...(flags.threads && { threads: flags.threads }) });
  try {
    const classifier = await classifierOf(flags, networks);
    const judge = classifier && classifierJudge(classifier);
    const base = imagesOf(flags, pipeline, classifier?.prompts ?? []);
    const plan = await planOf(flags, folder, pipeline, base, (text, done) => progress.show(text, done), signal);
    const images = flags.images ?? (flags.quick ? 18 : 256);
    if (!flags.report) {
      const { from, to } = rangeOf(flags.shard, images, plan.partSize);
      if (!flags.quiet) {
        process.stderr.write(
          `${plan.cells.length} ways to draw, ${to - from} images: about ${Math.round(studyCost(pipeline, plan))} full steps for each image.\n`,
        );
      }
      const { batchSize } = flags;
      await runStudy(pipeline, plan, {
        ...{ store: folder, judge, from, to, signal },
        ...(batchSize !== undefined && { batchSize }),
        onProgress: (text, done) => progress.show(text, done),
      });
      for (const level of levelsOf(flags)) await record(pipeline, plan, level, folder, progress, signal);
    }
    progress.show("making the report", 1);
    const paths = await report(
      plan,
      [folder, ...(flags.merge ?? []).map((path) => new StudyFolder(path))],
      judge,
      {
        Command: ["femo", ...process.argv.slice(2)].join(" "),
        Version: `femo ${version}, Node ${process.version}`,
        Machine: cpus()[0]?.model ?? "CPU",
      },
      signal,
    );
    progress.clear();
    if (!flags.quiet) print(paths.map(([what, path]) => `${what}: ${path}`).join("\n"));
  } finally {
    progress.clear();
    await networks.close();
    await pipeline.close();
  }
}

/** Of which levels there are figures; the first shard records them. */
const levelsOf = ({ figures, quick, shard }: QualityFlags): readonly string[] =>
  shard.index > 1 ? [] : (figures ?? (quick ? [] : ["output"]));

const FIGURE_IMAGES = 4;

/** Records the paths of a feature, unless they are there. */
async function record(
  pipeline: DiffusionPipeline,
  plan: StudyPlan,
  level: string,
  folder: StudyFolder,
  progress: Progress,
  signal: AbortSignal,
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

/** Makes the report of all parts that there are. @returns what was written where */
async function report(
  plan: StudyPlan,
  folders: readonly [StudyFolder, ...StudyFolder[]],
  judge: Judge | undefined,
  facts: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<(readonly [what: string, path: string])[]> {
  for (const other of folders.slice(1)) checkSame(plan, other.plan(), other.path);
  const parts = function* () {
    for (const { id } of plan.cells) for (const folder of folders) yield* folder.parts(id);
  };
  const rows = await studyRows(plan, parts(), (layer) => judge?.population(layer));
  const [{ path }] = folders;
  const samples = (cell: string) => folders.map((one) => one.samples(cell)).find(({ length }) => length > 0) ?? [];
  const figures = folders.flatMap((one) => one.allTrajectories()).flatMap(trajectoryFigures);
  const files = [
    ["Report", join(path, "report.html"), studyHtml({ plan, rows, samples, chartJs: chartJs(), facts, figures })],
    ["Table", join(path, "table.csv"), studyCsv(rows)],
    ["JSON", join(path, "rows.json"), `${JSON.stringify({ facts, plan, rows: rows.map(withoutValues) }, null, 1)}\n`],
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
async function planOf(
  flags: QualityFlags,
  folder: StudyFolder,
  pipeline: DiffusionPipeline,
  base: Omit<StudyPlan, "cells">,
  onProgress: (text: string, done: number) => void,
  signal: AbortSignal,
): Promise<StudyPlan> {
  const existing = folder.plan();
  if (existing) {
    checkSame({ ...existing, ...base }, existing, folder.path);
    return existing;
  }
  if (flags.report) throw new FemoError("E_OPTION", `--out: ${folder.path} has no study to report on`);
  const { methods, levels, speedups, quick } = flags;
  const options: CellOptions = {
    ...{ numInferenceSteps: base.numInferenceSteps, drawing: base.drawing, subjects: base.subjects },
    ...{ signal, onProgress },
    ...(methods && { methods }),
    ...(levels && { levels }),
    ...(speedups && { speedups }),
    ...(quick && { quick }),
  };
  return folder.begin({ ...base, cells: await studyCells(pipeline, options) });
}

/** What the images of a study are. */
function imagesOf(
  flags: QualityFlags,
  pipeline: DiffusionPipeline,
  prompts: readonly LabelledPrompt[],
): Omit<StudyPlan, "cells"> {
  const { numInferenceSteps = pipeline.defaults.numInferenceSteps, seed, ...request } = requestOf(flags);
  const { numImagesPerPrompt: _, batchSize: __, ...drawing } = request;
  const convergedSteps = flags.convergedSteps ?? (flags.quick ? 0 : 200);
  return {
    model: pipeline.name,
    dtype: pipeline.dtype,
    seed: Number(seed),
    numInferenceSteps,
    ...(convergedSteps > 0 && { convergedSteps }),
    drawing,
    subjects: studySubjects(flags, pipeline, prompts),
    partSize: flags.quick ? 9 : flags.partSize,
  };
}

function studySubjects(
  flags: QualityFlags,
  pipeline: DiffusionPipeline,
  prompts: readonly LabelledPrompt[],
): StudySubject[] {
  const { classes, prompt } = flags;
  if (pipeline.subjectOption === "prompt") {
    if (!prompt && prompts.length > 0) return prompts.map(({ prompt: subject, labels }) => ({ subject, labels }));
    return (prompt ?? pipeline.examples).map((subject) => ({ subject }));
  }
  const names = [...pipeline.classes];
  const isCalled =
    (one: string) =>
    ([id, titles]: readonly [number, readonly string[]]) =>
      titles.includes(one) || String(id) === one;
  const named = classes?.map((one) => names.find(isCalled(one)) ?? ([one, [one]] as const));
  return (named ?? names).map(([id, [name = String(id)]]) => ({ subject: id, labels: { class: name } }));
}

/** The classifier of what the model draws, if there is one. */
function classifierOf(
  { classifier, model }: QualityFlags,
  networks: MetricNetworks,
): Promise<ImageClassifier | undefined> {
  const name = classifier ?? CLASSIFIERS[model];
  return name === undefined || name === "none" ? Promise.resolve(undefined) : networks.classifier(name);
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

/** Whole parts for each shard. */
function rangeOf({ index, of }: Shard, images: number, partSize: number): { from: number; to: number } {
  const parts = Math.ceil(images / partSize);
  const at = (i: number): number => Math.min(images, Math.floor((i * parts) / of) * partSize);
  return { from: at(index - 1), to: at(index) };
}

function shard(value: string): Shard {
  const [, index, of] = /^(\d+)\/(\d+)$/.exec(value)?.map(Number) ?? [];
  if (index === undefined || of === undefined || index < 1 || index > of) {
    throw new InvalidArgumentError('Expected one of so many, such as "1/4".');
  }
  return { index, of };
}
