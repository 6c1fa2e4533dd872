import { existsSync, readFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import type { Granularity } from "../graph/index.js";
import type { CacheMethod } from "../pipelines/index.js";
import { compare, comparisonHtml, comparisonTable, defaultVariants } from "../studies/index.js";
import { checkAbsent, writeFiles } from "./files.js";
import {
  addCommon,
  type CommandContext,
  type CommonFlags,
  cacheMethod,
  granularity,
  granularityNames,
  integer,
  listOf,
  methodNames,
  openPipeline,
  requestOf,
} from "./options.js";
import { progressLine } from "./progress.js";

interface CompareFlags extends CommonFlags {
  out: string;
  classes?: string[];
  cache?: CacheMethod[];
  interval: number;
  order?: number;
  firstEnhance?: number;
  granularity?: Granularity[];
}

/** `femo compare`: methods side by side, as a table and an HTML report. */
export const compareCommand = (context: CommandContext): Command =>
  addCommon(new Command("compare"), { batchSize: 5 })
    .description("compare caching methods with an uncached run, as a table and an HTML report")
    .option("--out <path>", "folder, or .html file, of the report", "femo-report")
    .option("--classes <list>", "classes by name or number (default: the first ten)", listOf(String))
    .option("--cache <list>", `methods, of ${methodNames} (default: all)`, listOf(cacheMethod))
    .option("--interval <n>", "a full step every so many", integer, 5)
    .option("--order <n>", "order of the forecasts", integer)
    .option("--first-enhance <n>", "full steps at the start", integer)
    .option("--granularity <list>", `where features are kept, of ${granularityNames}`, listOf(granularity))
    .action((flags: CompareFlags) => run(flags, context));

async function run(flags: CompareFlags, { version, signal }: CommandContext): Promise<void> {
  const path = flags.out.toLowerCase().endsWith(".html") ? flags.out : join(flags.out, "index.html");
  if (!flags.force && !isReport(path)) checkAbsent([path]);
  const pipeline = await openPipeline(flags, signal);
  const progress = progressLine(flags.quiet);
  try {
    const variants = defaultVariants(pipeline.presets, {
      numInferenceSteps: flags.steps,
      interval: flags.interval,
      ...(flags.cache && { methods: flags.cache }),
      ...(flags.order !== undefined && { order: flags.order }),
      ...(flags.firstEnhance !== undefined && { firstEnhance: flags.firstEnhance }),
      ...(flags.granularity && { granularities: flags.granularity }),
    });
    const comparison = await compare(pipeline, {
      ...requestOf(flags),
      ...(flags.classes && { classLabels: flags.classes }),
      variants,
      signal,
      onProgress: ({ variant, step, numInferenceSteps, done }) =>
        progress.show(`${variant}: step ${step + 1} of ${numInferenceSteps}`, done),
    });
    const facts = {
      Command: ["femo", ...process.argv.slice(2)].join(" "),
      Version: `femo ${version}, Node ${process.version}`,
      Machine: `${cpus()[0]?.model ?? "CPU"}, ${flags.threads ?? availableParallelism()} threads`,
    };
    await writeFiles([{ path, content: comparisonHtml(comparison, { chartJs: chartJs(), facts }) }], signal);
    progress.clear();
    if (flags.json) {
      const { images, ...data } = comparison;
      process.stdout.write(`${JSON.stringify({ version, report: path, ...data }, null, 2)}\n`);
    } else if (!flags.quiet) process.stdout.write(`${comparisonTable(comparison)}\n\nReport: ${path}\n`);
  } finally {
    progress.clear();
    await pipeline.close();
  }
}

/** An earlier report may be replaced. */
const isReport = (path: string): boolean =>
  existsSync(path) && readFileSync(path, "utf8").slice(0, 1000).includes('content="femo compare"');

/** Chart.js as one classic script; it lies beside the package's entry. */
const chartJs = (): string =>
  readFileSync(fileURLToPath(new URL("chart.umd.min.js", import.meta.resolve("chart.js"))), "utf8");
