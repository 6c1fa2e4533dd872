import { join } from "node:path";
import { Command } from "commander";
import { FemoError } from "../errors.js";
import { encodePng, parametersText, type RgbImage } from "../images/index.js";
import type { DiffusionPipeline, GeneratedImage, GenerationReport, Phase, SubjectOptions } from "../pipelines/index.js";
import { classId, className } from "../pipelines/labels.js";
import { samplerTitle, seedAfter } from "../samplers/index.js";
import { addCacheFlags, type CacheFlags, cacheOf } from "./cache-flags.js";
import { checkFree, outputTarget, pictureOf, type Target, writeFiles } from "./files.js";
import { addCommon, type CommandContext, type CommonFlags, number, openPipeline, requestOf } from "./options.js";
import { jsonText, print, warn } from "./output.js";
import { progressLine } from "./progress.js";

/** A picture to begin with. */
interface BeginningFlags {
  readonly image?: RgbImage;
  readonly maskImage?: RgbImage;
  readonly strength?: number;
}

type GenerateFlags = CommonFlags & CacheFlags & BeginningFlags;

/** `femo generate`: images of the prompts given or the classes named, as PNG files. */
export const generateCommand = (context: CommandContext): Command =>
  addCacheFlags(addCommon(new Command("generate"), { images: "1", batchSize: "4" }))
    .description("draw images of prompts, or of classes")
    .argument("<subject...>", "prompts, or classes by name or number, as the model takes them")
    .option("--out <path>", "PNG file, or folder (default: femo-<subject>-<seed>.png here)")
    .option("--image <file>", "of Stable Diffusion: PNG to begin with; its sides are the images'", pictureOf("--image"))
    .option("--strength <x>", "how much of it is noise at first, above 0 to 1", number)
    .option(
      "--mask-image <file>",
      "PNG of what of it is drawn anew, white, and what stays, black",
      pictureOf("--mask-image"),
    )
    .action((subjects: string[], flags: GenerateFlags) => generate(subjects, flags, context));

async function generate(subjects: string[], flags: GenerateFlags, { version, signal }: CommandContext): Promise<void> {
  const cache = cacheOf(flags);
  const { numImagesPerPrompt = 1, force } = flags;
  const total = subjects.length * numImagesPerPrompt;
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
    let done = 0;
    const paths = outputPaths(target, subjects, numImagesPerPrompt, flags.seed, pipeline);
    checkFree(paths, force);
    signal.throwIfAborted();
    const { images, report } = await pipeline.generate({
      ...requestOf(flags),
      ...beginningOf(flags),
      [pipeline.subjectOption]: subjects,
      cache,
      signal,
      onPhase: (phase) => progress.show(PHASES[phase], done),
      onStep: ({ step, numInferenceSteps, images: members }) => {
        done = ((members[0] as number) * numInferenceSteps + (step + 1) * members.length) / (total * numInferenceSteps);
        progress.show(`step ${step + 1} of ${numInferenceSteps}`, done);
      },
    });
    const files = images.map((image, i) => ({ path: paths[i] as string, content: png(image, report, version) }));
    await writeFiles(files, signal);
    progress.clear();
    if (!flags.quiet) warn(report.warnings);
    if (flags.json) {
      const made = images.map((image, i) => ({ file: paths[i], ...shown(image), seed: image.seed }));
      print(jsonText({ version, images: made, report }, 2));
    } else if (!flags.quiet) print(paths.join("\n"));
  } finally {
    progress.clear();
    await pipeline.close();
  }
}

const beginningOf = ({ image, maskImage, strength }: BeginningFlags): SubjectOptions => ({
  ...(image && { image }),
  ...(maskImage && { maskImage }),
  ...(strength !== undefined && { strength }),
});

const PHASES: Readonly<Record<Phase, string>> = {
  encoding: "reading the prompts",
  conditioning: "computing what all steps share",
  denoising: "loading the model",
  decoding: "decoding",
};

function outputPaths(
  target: Target,
  subjects: readonly string[],
  numImagesPerPrompt: number,
  seed: number | bigint,
  pipeline: DiffusionPipeline,
): string[] {
  if ("file" in target) return [target.file];
  const nameOf = (subject: string): string =>
    pipeline.subjectOption === "prompt" ? subject : className(classId(subject, pipeline.classes), pipeline.classes);
  return subjects
    .flatMap((subject) => new Array<string>(numImagesPerPrompt).fill(fileName(nameOf(subject))))
    .map((name, i) => join(target.folder, `femo-${name}-${seedAfter(seed, i)}.png`));
}

/** Characters of a prompt that a file's name has. */
const MAX_NAME = 60;

const fileName = (subject: string): string =>
  subject
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-(?=.)/, "")
    .slice(0, MAX_NAME)
    .replace(/(?<=.)-$/, "") || "image";

/** What of an image is neither pixels nor seed. */
function shown({ width: _, height: __, data: ___, seed: ____, title: _____, ...about }: GeneratedImage) {
  return about;
}

/** The image with how it was made: AUTOMATIC1111's text, and all of it as JSON. */
function png(image: GeneratedImage, report: GenerationReport, version: string): Uint8Array {
  const { title, negativePrompt, seed = 0, width, height } = image;
  const { model, sampler, numInferenceSteps, guidanceScale, guidanceChannels, timestepSpacing, dtype, cache } = report;
  const { trueCfgScale, maxSequenceLength, strength, samplerSettings } = report;
  const parameters = parametersText({
    prompt: title,
    ...(negativePrompt !== undefined && { negativePrompt }),
    steps: numInferenceSteps,
    sampler: samplerTitle(sampler),
    cfgScale: trueCfgScale ?? guidanceScale,
    seed,
    width,
    height,
    model,
    extra: {
      ...(strength !== undefined && { "Denoising strength": strength }),
      Cache: cache.method,
      Precision: dtype,
      Version: `femo ${version}`,
    },
  });
  const all = {
    version,
    model,
    ...shown(image),
    seed,
    numInferenceSteps,
    guidanceScale,
    guidanceChannels,
    ...(trueCfgScale !== undefined && { trueCfgScale, height, width, maxSequenceLength }),
    ...(strength !== undefined && { height, width, strength }),
    sampler,
    ...(samplerSettings && { samplerSettings }),
    timestepSpacing,
    dtype,
    cache,
  };
  return encodePng(image, { text: { parameters, femo: jsonText(all) } });
}
