import { join } from "node:path";
import { Command } from "commander";
import { FemoError } from "../errors.js";
import { encodePng, parametersText } from "../images/index.js";
import type { DiffusionPipeline, GeneratedImage, GenerationReport } from "../pipelines/index.js";
import { classId, className } from "../pipelines/labels.js";
import { samplerTitle, seedAfter } from "../samplers/index.js";
import { addCacheFlags, type CacheFlags, cacheOf } from "./cache-flags.js";
import { checkFree, outputTarget, type Target, writeFiles } from "./files.js";
import { addCommon, type CommandContext, type CommonFlags, openPipeline, requestOf } from "./options.js";
import { jsonText, print, warn } from "./output.js";
import { progressLine } from "./progress.js";

type GenerateFlags = CommonFlags & CacheFlags;

/** `femo generate`: images of the classes named, as PNG files. */
export const generateCommand = (context: CommandContext): Command =>
  addCacheFlags(addCommon(new Command("generate"), { images: "1", batchSize: "4" }))
    .description("draw images of classes")
    .argument("<class...>", "classes by name or number")
    .option("--out <path>", "PNG file, or folder (default: femo-<class>-<seed>.png here)")
    .action((classes: string[], flags: GenerateFlags) => generate(classes, flags, context));

async function generate(classes: string[], flags: GenerateFlags, { version, signal }: CommandContext): Promise<void> {
  const cache = cacheOf(flags);
  const { numImagesPerPrompt = 1, force } = flags;
  const total = classes.length * numImagesPerPrompt;
  const target = outputTarget(flags.out ?? ".", ".png");
  if ("file" in target) {
    if (total > 1) {
      throw new FemoError("E_OPTION", `--out: expected a folder for ${total} images, found the file ${target.file}`);
    }
    checkFree([target.file], force);
  }
  const pipeline = await openPipeline(flags, signal);
  const progress = progressLine(flags.quiet);
  try {
    const paths = outputPaths(target, classes, numImagesPerPrompt, flags.seed, pipeline);
    checkFree(paths, force);
    signal.throwIfAborted();
    const { images, report } = await pipeline.generate({
      ...requestOf(flags),
      classLabels: classes,
      cache,
      signal,
      onStep: ({ step, numInferenceSteps, images: members }) => {
        const done =
          ((members[0] as number) * numInferenceSteps + (step + 1) * members.length) / (total * numInferenceSteps);
        progress.show(`step ${step + 1} of ${numInferenceSteps}`, done);
      },
    });
    const files = images.map((image, i) => ({ path: paths[i] as string, content: png(image, report, version) }));
    await writeFiles(files, signal);
    progress.clear();
    if (!flags.quiet) warn(report.warnings);
    if (flags.json) {
      const made = images.map(({ classId, className, seed }, i) => ({ file: paths[i], classId, className, seed }));
      print(jsonText({ version, images: made, report }, 2));
    } else if (!flags.quiet) print(paths.join("\n"));
  } finally {
    progress.clear();
    await pipeline.close();
  }
}

function outputPaths(
  target: Target,
  classes: readonly string[],
  numImagesPerPrompt: number,
  seed: number | bigint,
  pipeline: DiffusionPipeline,
): string[] {
  if ("file" in target) return [target.file];
  const safe = (name: string): string => name.toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, "-");
  const names = classes.map((label) => safe(className(classId(label, pipeline.classes), pipeline.classes)));
  return names
    .flatMap((name) => new Array<string>(numImagesPerPrompt).fill(name))
    .map((name, i) => join(target.folder, `femo-${name}-${seedAfter(seed, i)}.png`));
}

/** The image with how it was made: AUTOMATIC1111's text, and all of it as JSON. */
function png(image: GeneratedImage, report: GenerationReport, version: string): Uint8Array {
  const { className, classId, seed = 0, width, height } = image;
  const { model, sampler, numInferenceSteps, guidanceScale, guidanceChannels, timestepSpacing, dtype, cache } = report;
  const parameters = parametersText({
    prompt: className,
    steps: numInferenceSteps,
    sampler: samplerTitle(sampler),
    cfgScale: guidanceScale,
    seed,
    width,
    height,
    model,
    extra: { Cache: cache.method, Precision: dtype, Version: `femo ${version}` },
  });
  const all = {
    version,
    model,
    classId,
    className,
    seed,
    numInferenceSteps,
    guidanceScale,
    guidanceChannels,
    sampler,
    timestepSpacing,
    dtype,
    cache,
  };
  return encodePng(image, { text: { parameters, femo: jsonText(all) } });
}
