import { readFileSync, statSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { FemoError } from "../errors.js";
import type { CacheMethod, DiffusionPipeline } from "../pipelines/index.js";
import { ownSteps } from "../samplers/index.js";
import {
  type CompareOptions,
  type CompareResult,
  type CompareVariant,
  type ComparisonPlan,
  compare,
  comparisonHtml,
  comparisonTable,
  defaultVariants,
  planComparison,
  recommendedMethods,
  variantsAtSpeedup,
} from "../studies/index.js";
import { secondsText, warningsOf } from "../studies/table.js";
import { chartJs } from "./chart-js.js";
import { durationText } from "./duration.js";
import { checkFree, outputTarget, writeFiles } from "./files.js";
import {
  addCommon,
  addSubjects,
  type CommandContext,
  type CommonFlags,
  cacheMethod,
  integer,
  listOf,
  methodNames,
  number,
  openPipeline,
  requestOf,
  type SubjectFlags,
  subjectsOf,
} from "./options.js";
import { jsonText, print, warn } from "./output.js";
import { progressLine } from "./progress.js";

interface CompareFlags extends CommonFlags, SubjectFlags {
  out: string;
  cache?: CacheMethod[] | "all";
  interval?: number;
  speedup?: number;
  convergedSteps?: number;
  order?: number;
  firstEnhance?: number;
  granularity?: string[];
}

/** `femo compare`: methods side by side, as a table and an HTML report. */
export const compareCommand = (context: CommandContext): Command =>
  addSubjects(
    addCommon(new Command("compare"), { images: "1", batchSize: "by the speed of the machine, up to 5" }),
    "of the model's examples as many as take a minute",
  )
    .description("compare caching methods with an uncached run, as a table and an HTML report")
    .option("--out <path>", "folder, or .html file, of the report", "femo-report")
    .option(
      "--cache <list>",
      `methods, of ${methodNames}, or "all" (default: ${recommendedMethods.join(", ")}, and a fitted solver)`,
      cacheMethodsOf,
    )
    .option("--interval <n>", "a full step every so many, of the methods that go by it (default: 5)", integer)
    .addOption(
      new Option("--speedup <x>", "every method and its rivals at this FLOPs speed-up")
        .argParser(number)
        .conflicts("interval"),
    )
    .option("--converged-steps <n>", "compare with the images of so many uncached steps too", integer)
    .option("--order <n>", "order of the forecasts", integer)
    .option("--first-enhance <n>", "full steps at the start", integer)
    .option("--granularity <list>", "where features are kept: levels of the model, or x0", listOf(String))
    .action((flags: CompareFlags) => run(flags, context));

async function run(flags: CompareFlags, { version, signal }: CommandContext): Promise<void> {
  const target = outputTarget(flags.out, ".html");
  const path = "file" in target ? target.file : join(target.folder, "index.html");
  checkFree([path], flags.force || isReport(path));
  const pipeline = await openPipeline(flags, signal);
  const progress = progressLine(flags.quiet || !process.stderr.isTTY); // elsewhere a line for every result
  try {
    if (flags.speedup !== undefined) progress.show("finding settings at this speed-up", 0);
    const variants = await variantsOf(pipeline, flags, signal);
    const subjects = subjectsOf(flags);
    const named = flags.classes ?? flags.prompt;
    const given: CompareOptions & { variants: CompareVariant[] } = {
      ...requestOf(flags),
      ...subjects,
      ...(flags.convergedSteps !== undefined && { convergedSteps: flags.convergedSteps }),
      variants,
      signal,
    };
    const planned = named === undefined || flags.batchSize === undefined;
    const plan = planned ? await planComparison(pipeline, given) : undefined;
    if (plan && !flags.quiet) process.stderr.write(`${planText(plan, flags)}\n`);
    const images = plan?.images ?? (named ?? []).length * (flags.numImagesPerPrompt ?? 1);
    checkReportSize(images * (variants.length + 1), pipeline.imageSize(given));
    const comparison = await compare(pipeline, {
      ...given,
      ...(plan && { ...plan.subjects, batchSize: plan.batchSize }),
      onProgress: ({ variant, step, numInferenceSteps, done }) =>
        progress.show(`${variant}: step ${step + 1} of ${numInferenceSteps}`, done),
      onResult: (result) => {
        if (!flags.quiet && !process.stderr.isTTY) process.stderr.write(`${resultText(result)}\n`);
      },
    });
    const facts = {
      Command: ["femo", ...process.argv.slice(2)].join(" "),
      Version: `femo ${version}, Node ${process.version}`,
      Machine: `${cpus()[0]?.model ?? "CPU"}, ${flags.threads ?? availableParallelism()} threads`,
    };
    await writeFiles([{ path, content: comparisonHtml(comparison, { chartJs: chartJs(), facts }) }], signal);
    progress.clear();
    if (!flags.quiet) warn(warningsOf(comparison.rows));
    if (flags.json) {
      const { images, ...data } = comparison;
      print(jsonText({ version, report: path, ...data }, 2));
    } else if (!flags.quiet) print(`${comparisonTable(comparison)}\n\nReport: ${path}`);
  } finally {
    progress.clear();
    await pipeline.close();
  }
}

/** The methods that the flags choose, and their rivals. */
async function variantsOf(
  pipeline: DiffusionPipeline,
  flags: CompareFlags,
  signal: AbortSignal,
): Promise<CompareVariant[]> {
  const { cache, order, firstEnhance, granularity, interval, speedup } = flags;
  const chosen = {
    numInferenceSteps: flags.steps ?? ownSteps(flags.sampler) ?? pipeline.defaults.numInferenceSteps,
    ...(cache && { methods: cache }),
    ...(order !== undefined && { order }),
    ...(firstEnhance !== undefined && { firstEnhance }),
    ...(granularity && { granularities: granularity }),
    ...(flags.sampler !== undefined && { sampler: flags.sampler }),
    ...(flags.timestepSpacing !== undefined && { timestepSpacing: flags.timestepSpacing }),
  };
  if (speedup === undefined) {
    return defaultVariants(pipeline, { ...chosen, ...(interval !== undefined && { interval }) });
  }
  const { numImagesPerPrompt: _, decodeTileSize: __, ...request } = requestOf(flags);
  const { classes, prompt } = flags;
  const few = subjectsOf({
    ...(classes && { classes: classes.slice(0, 4) }),
    ...(prompt && { prompt: prompt.slice(0, 4) }),
  });
  return variantsAtSpeedup(pipeline, { ...request, ...chosen, ...few, speedup, signal });
}

const cacheMethodsOf = (value: string): CacheMethod[] | "all" =>
  value.trim() === "all" ? "all" : listOf(cacheMethod)(value);

/** Characters of images in a report: half of the longest string there can be, which a report is. */
const MAX_PAGE = 2 ** 28;

/** @throws FemoError E_OPTION if so many images do not fit into one page */
function checkReportSize(images: number, [height, width]: readonly [number, number]): void {
  const most = Math.floor(MAX_PAGE / (height * width * 4)); // three bytes a pixel are four characters
  if (images <= most) return;
  throw new FemoError(
    "E_OPTION",
    `--classes or --prompt, --num-images-per-prompt: expected at most ${most} images in all rows, as more do not fit into one page, ` +
      `found ${images}: compare fewer images or variants`,
  );
}

/** What was chosen, and why. */
function planText({ images, batchSize, stepMs, expectedMs }: ComparisonPlan, flags: CompareFlags) {
  const named = flags.classes ?? flags.prompt;
  const options = [
    ...(named ? [] : ["--classes or --prompt"]),
    ...(flags.batchSize === undefined ? ["--batch-size"] : []),
  ];
  return (
    `A full step takes ${stepMs.toFixed(0)} ms for one image here: drawing ${images} image${images === 1 ? "" : "s"} ` +
    `${batchSize} at a time, which takes about ${durationText(expectedMs / 1000)}. ${options.join(" and ")} ${options.length === 1 ? "chooses" : "choose"} otherwise.`
  );
}

/** "round 1 of 3: FEMO, 2 images in 0.85 s, 4.10x, 41.2 dB" */
function resultText({ variant, round, rounds, images, durationMs, measuredSpeedup, psnr }: CompareResult): string {
  return [
    `round ${round} of ${rounds}: ${variant}`,
    `${images} image${images === 1 ? "" : "s"} in ${secondsText(durationMs)}`,
    ...(measuredSpeedup === undefined ? [] : [`${measuredSpeedup.toFixed(2)}x`]),
    ...(psnr === undefined ? [] : [psnr === Number.POSITIVE_INFINITY ? "identical" : `${psnr.toFixed(1)} dB`]),
  ].join(", ");
}

/** An earlier report may be replaced. */
const isReport = (path: string): boolean =>
  (statSync(path, { throwIfNoEntry: false })?.isFile() ?? false) &&
  readFileSync(path, "utf8").slice(0, 1000).includes('content="femo compare"');
