import { Argument, Command, Option } from "commander";
import { FemoError } from "../errors.js";
import type { GaussianFit, MetricNetworks } from "../metrics/index.js";
import type { DiffusionPipeline } from "../pipelines/index.js";
import {
  classSubjects,
  type Judge,
  networkJudge,
  type PaperMetric,
  type PaperModel,
  type PaperProtocol,
  paperProtocols,
  type StudyCell,
  type StudySubject,
  withoutRefused,
} from "../studies/index.js";
import { textOf } from "./files.js";
import { addDrawing, type CommandContext } from "./options.js";
import { momentsAt } from "./reference-moments.js";
import {
  addStudyOptions,
  imagesOf,
  type StudyFlags,
  type StudyJob,
  type StudyTools,
  withStudyTools,
  workOnStudy,
} from "./study-work.js";

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
  const prompts = flags.prompts === undefined ? undefined : promptsOf(flags.prompts);
  const { weights, anyWeights } = flags;
  await withStudyTools(flags, context, { weights, anyWeights }, async ({ networks, ...tools }) => {
    const { pipeline } = tools;
    const images = flags.images ?? protocol.images;
    const { drawing, ...given } = imagesOf(flags, pipeline);
    const base: StudyJob["base"] = {
      ...given,
      numInferenceSteps: protocol.numInferenceSteps,
      drawing: { ...protocol.drawing, ...drawing },
      subjects: subjectsOf(flags, pipeline, prompts, images),
      partSize: flags.partSize ?? PART_SIZE,
    };
    const tell = (cell: StudyCell, why: string): void => {
      if (!flags.quiet) process.stderr.write(`${cell.series}: left out: ${why}\n`);
    };
    const isMeasured = flags.metrics !== false && !flags.estimate;
    await workOnStudy({
      ...{ ...tools, flags, base, images, estimate: flags.estimate },
      judge: isMeasured ? await judgeOf(protocol, flags, networks, tools) : undefined,
      figures: [],
      cells: () => withoutRefused(pipeline, protocol.cells(), base, tell),
    });
  });
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
  tools: Pick<StudyTools, "progress" | "context">,
): Promise<Judge> {
  const has = (metric: PaperMetric): boolean => metrics.includes(metric);
  const convention = has("fid:tf") ? "tf" : "pytorch";
  const withFid = has("fid:tf") || has("fid:pytorch");
  return networkJudge({
    ...(withFid && {
      fid: {
        network: (await networks.inception(["pool_3", "spatial"])).network,
        convention,
        population: statistics === undefined ? undefined : await populationOf(statistics, tools),
      },
    }),
    ...(has("lpips:alex") && { lpips: await networks.lpips("alex") }),
    ...(has("clip:L/14") && { clip: await networks.clip("L/14") }),
    ...(has("image-reward") && { imageReward: await networks.imageReward() }),
  });
}

/** @throws FemoError E_FILE if the file has no moments of both layers */
async function populationOf(path: string, { progress, context: { signal } }: Pick<StudyTools, "progress" | "context">) {
  const fitOf = async (kind: "pool_3" | "spatial"): Promise<GaussianFit> => {
    const fit = await momentsAt(path, kind, { keep: true, progress, signal });
    if (fit) return fit;
    throw new FemoError("E_FILE", `--statistics: ${path}: expected .npz of mu, sigma, mu_s and sigma_s, found images`);
  };
  return { pool_3: await fitOf("pool_3"), spatial: await fitOf("spatial") };
}
