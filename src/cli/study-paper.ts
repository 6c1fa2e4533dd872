import { Argument, Command, Option } from "commander";
import { FemoError } from "../errors.js";
import { MetricNetworks } from "../metrics/index.js";
import { hasMoments, referenceFit } from "../metrics/reference.js";
import type { DiffusionPipeline } from "../pipelines/index.js";
import { openFile } from "../platform/node/file.js";
import {
  classSubjects,
  type Judge,
  networkJudge,
  type PaperMetric,
  type PaperModel,
  type PaperProtocol,
  paperProtocols,
  type StudyCell,
  type StudyPlan,
  type StudySubject,
  withoutRefused,
} from "../studies/index.js";
import { readNpz } from "../weights/index.js";
import { textOf } from "./files.js";
import { addDrawing, type CommandContext, openPipeline, requestOf } from "./options.js";
import { progressLine } from "./progress.js";
import { addStudyOptions, type StudyFlags, workOnStudy } from "./study-work.js";

interface PaperFlags extends StudyFlags {
  prompts?: string;
  statistics?: string;
  labels: "balanced" | "random";
  weights?: string;
  anyWeights?: boolean;
  metrics?: boolean;
  estimate?: boolean;
}

/** Of which 200 and 50,000 images are whole ones. */
const PART_SIZE = 50;

/** `femo study paper`: a table of the FEMO paper by its own protocol, on the real model. */
export const paperCommand = (context: CommandContext): Command =>
  addStudyOptions(
    addDrawing(new Command("paper"), { images: "1", batchSize: "8" }),
    Object.entries(paperProtocols)
      .map(([name, { images }]) => `${name} ${images}`)
      .join(", "),
    String(PART_SIZE),
  )
    .description("run the rows of the FEMO paper's tables by its protocol, and measure them as it does")
    .addArgument(new Argument("<which>", "model of the paper").choices(Object.keys(paperProtocols)))
    .option("--prompts <file>", "a prompt a line, such as DrawBench's 200: needed by flux and sdxl")
    .option(
      "--statistics <file>",
      "moments of reference pictures (.npz) for FID and sFID (default: the uncached images)",
    )
    .addOption(
      new Option("--labels <how>", "classes of dit: each as often, in turns, or at random by the seed")
        .choices(["balanced", "random"])
        .default("random"),
    )
    .option("--weights <path>", "folder of the metrics' weights (default: downloaded once)")
    .option("--any-weights", "take weights of metrics that are not the published ones")
    .option("--no-metrics", "PSNR and SSIM alone")
    .option("--estimate", "say what it would cost, and end")
    .action((which: PaperModel, flags: PaperFlags, command: Command) => {
      const protocol: PaperProtocol = paperProtocols[which];
      const isModelGiven = command.getOptionValueSource("model") !== "default";
      return run(protocol, { ...flags, ...(!isModelGiven && { model: protocol.model }) }, context);
    });

async function run(protocol: PaperProtocol, flags: PaperFlags, context: CommandContext): Promise<void> {
  const { signal } = context;
  const prompts = flags.prompts === undefined ? undefined : promptsOf(flags.prompts);
  const progress = progressLine(flags.quiet);
  const pipeline = await openPipeline(flags, signal);
  const { weights, anyWeights, cacheDir, threads } = flags;
  const networks = await MetricNetworks.open({ weights, anyWeights, cacheDir, threads, signal });
  try {
    const images = flags.images ?? protocol.images;
    const base = imagesOf(protocol, flags, pipeline, prompts, images);
    const tell = (cell: StudyCell, why: string): void => {
      if (!flags.quiet) process.stderr.write(`${cell.series}: left out: ${why}\n`);
    };
    const judge = flags.metrics === false || flags.estimate ? undefined : await judgeOf(protocol, flags, networks);
    await workOnStudy({
      ...{ flags, context, pipeline, progress, base, images, judge, estimate: flags.estimate },
      figures: [],
      cells: () => withoutRefused(pipeline, protocol.cells(), base, tell),
    });
  } finally {
    progress.clear();
    await networks.close();
    await pipeline.close();
  }
}

function imagesOf(
  protocol: PaperProtocol,
  flags: PaperFlags,
  pipeline: DiffusionPipeline,
  prompts: readonly string[] | undefined,
  images: number,
): Omit<StudyPlan, "cells"> {
  const { seed, numInferenceSteps: _, numImagesPerPrompt: __, batchSize: ___, ...given } = requestOf(flags);
  return {
    model: pipeline.name,
    dtype: pipeline.dtype,
    seed: Number(seed),
    numInferenceSteps: protocol.numInferenceSteps,
    drawing: { ...protocol.drawing, ...given },
    subjects: subjectsOf(flags, pipeline, prompts, images),
    partSize: flags.partSize ?? PART_SIZE,
  };
}

/** @throws FemoError E_OPTION if the model draws prompts and none are given, or the reverse */
function subjectsOf(
  { labels, seed }: PaperFlags,
  pipeline: DiffusionPipeline,
  prompts: readonly string[] | undefined,
  images: number,
): StudySubject[] {
  if (pipeline.subjectOption === "prompt") {
    if (prompts) return prompts.map((subject) => ({ subject }));
    const advice = "The paper's are the 200 of DrawBench, which have no licence to be shipped with femo";
    throw new FemoError("E_OPTION", `--prompts: expected a file of prompts, as ${pipeline.name} draws them. ${advice}`);
  }
  if (prompts) throw new FemoError("E_OPTION", `--prompts: expected none, as ${pipeline.name} draws classes`);
  return classSubjects(pipeline.classes.size, images, labels, Number(seed));
}

function promptsOf(path: string): string[] {
  const prompts = textOf(path)
    .split(/\r?\n/)
    .filter((line) => line.trim() !== "");
  if (prompts.length === 0) throw new FemoError("E_OPTION", `--prompts: ${path}: expected a prompt a line, found none`);
  return prompts;
}

/** The networks that the protocol measures with, downloaded if need be. */
async function judgeOf(
  { metrics }: PaperProtocol,
  { statistics }: PaperFlags,
  networks: MetricNetworks,
): Promise<Judge> {
  const has = (metric: PaperMetric): boolean => metrics.includes(metric);
  const convention = has("fid:tf") ? "tf" : "pytorch";
  const withFid = has("fid:tf") || has("fid:pytorch");
  return networkJudge({
    ...(withFid && {
      fid: {
        network: (await networks.inception(["pool_3", "spatial"])).network,
        convention,
        population: statistics === undefined ? undefined : await populationOf(statistics),
      },
    }),
    ...(has("lpips:alex") && { lpips: await networks.lpips("alex") }),
    ...(has("clip:L/14") && { clip: await networks.clip("L/14") }),
    ...(has("image-reward") && { imageReward: await networks.imageReward() }),
  });
}

/** @throws FemoError E_FILE if the file has no moments of both layers */
async function populationOf(path: string) {
  const source = await openFile(path);
  try {
    const npz = await readNpz(source);
    const missing = (["pool_3", "spatial"] as const).find((kind) => !hasMoments(npz, kind));
    if (missing) {
      throw new FemoError(
        "E_FILE",
        `--statistics: ${path}: expected mu, sigma, mu_s and sigma_s, found ${npz.names.join(", ")}`,
      );
    }
    return { pool_3: await referenceFit(npz, "pool_3"), spatial: await referenceFit(npz, "spatial") };
  } finally {
    await source.close();
  }
}
