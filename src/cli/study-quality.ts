import { Command } from "commander";
import type { ImageClassifier, LabelledPrompt, MetricNetworks } from "../metrics/index.js";
import type { CacheMethod, DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";
import { classifierJudge, type StudySubject, studyCells, uncachedStepMs } from "../studies/index.js";
import {
  addDrawing,
  addSubjects,
  type CommandContext,
  cacheMethod,
  integer,
  listOf,
  number,
  type SubjectFlags,
} from "./options.js";
import {
  addStudyOptions,
  imagesOf,
  type StudyFlags,
  type StudyJob,
  stepRequest,
  withStudyTools,
  workOnStudy,
} from "./study-work.js";

interface QualityFlags extends StudyFlags, SubjectFlags {
  quick?: boolean;
  methods?: CacheMethod[] | "all";
  levels?: string[];
  speedups?: number[];
  convergedSteps?: number;
  classifier?: string;
  figures?: string[];
}

/** The embedded models, and the classifiers of what they draw. */
const CLASSIFIERS: Readonly<Record<string, string>> = {
  "avatars-dit": "avatars-classifier",
  "avatars-flux": "avatars-flux-classifier",
  "avatars-sd": "avatars-flux-classifier",
};

/** `femo study quality`: every method over its own knob at every level, beside its rivals, on many images. */
export const qualityCommand = (context: CommandContext): Command =>
  addStudyOptions(
    addSubjects(
      addDrawing(new Command("quality"), { images: "1", batchSize: "8" }),
      "the classes, or the classifier's held-out prompts",
    ),
    "256, quick: as many as take a minute, up to 18",
    "as many as there are, up to 32",
  )
    .description("measure every method and its rivals on many images: a table, JSON, and an HTML report")
    .option("--quick", "a minute: the recommended methods at two costs")
    .option("--methods <list>", 'caching methods, or "all"', (value) =>
      value.trim() === "all" ? "all" : listOf(cacheMethod)(value),
    )
    .option("--levels <list>", "where features are kept (default: everywhere)", listOf(String))
    .option("--speedups <list>", "costs to which methods are set (default: 2,3,4,5,7,10)", listOf(number))
    .option("--converged-steps <n>", "of the converged images; 0 for none (default: 200, quick: 0)", integer)
    .option("--classifier <name>", "folder of a classifier of the images, or none (default: that of an embedded model)")
    .option(
      "--figures <levels>",
      "where paths of features are recorded for figures of forecasts (default: output, quick: nowhere)",
      listOf(String),
    )
    .action((flags: QualityFlags) => run(flags, context));

const MOST_IN_PART = 32;
const MOST_IMAGES = 256;
const MOST_QUICK = 18;
/** Of a minute, what opening and the report leave, and the full steps that quick's ways take for an image, about. */
const QUICK_MS = 45_000;
const QUICK_STEPS = 330;

/** How many images are drawn if nothing is said: by the speed of the machine, if it is to be quick. */
async function imageCount(
  { images, quick }: QualityFlags,
  pipeline: DiffusionPipeline,
  request: GenerateOptions,
): Promise<number> {
  if (images !== undefined || !quick) return images ?? MOST_IMAGES;
  const stepMs = await uncachedStepMs(pipeline, request);
  return Math.max(2, Math.min(MOST_QUICK, Math.floor(QUICK_MS / (stepMs * QUICK_STEPS))));
}

const run = (flags: QualityFlags, context: CommandContext): Promise<void> =>
  withStudyTools(flags, context, {}, async ({ networks, ...tools }) => {
    const { pipeline } = tools;
    const classifier = await classifierOf(flags, networks);
    const drawn = imagesOf(flags, pipeline);
    const subjects = studySubjects(flags, pipeline, classifier?.prompts ?? []);
    const images = await imageCount(flags, pipeline, stepRequest(pipeline, { ...drawn, subjects }, context.signal));
    const { methods, levels, speedups, quick = false } = flags;
    const convergedSteps = flags.convergedSteps ?? (quick ? 0 : 200);
    const base: StudyJob["base"] = {
      ...drawn,
      ...(convergedSteps > 0 && { convergedSteps }),
      subjects,
      partSize: flags.partSize ?? Math.min(MOST_IN_PART, images),
    };
    await workOnStudy({
      ...{ ...tools, flags, base, images },
      judge: classifier && classifierJudge(classifier),
      figures: flags.figures ?? (quick ? [] : ["output"]),
      cells: (onProgress) =>
        studyCells(pipeline, {
          ...{ numInferenceSteps: base.numInferenceSteps, drawing: base.drawing, subjects: base.subjects },
          ...{ quick, signal: context.signal, onProgress },
          ...(methods && { methods }),
          ...(levels && { levels }),
          ...(speedups && { speedups }),
        }),
    });
  });

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
