import { Argument, Command } from "commander";
import { type CalibratedMethod, calibrate, calibratedMethods } from "../studies/index.js";
import {
  addDrawing,
  addSubjects,
  type CommandContext,
  type CommonFlags,
  openPipeline,
  requestOf,
  type SubjectFlags,
  subjectsOf,
} from "./options.js";
import { jsonText, print } from "./output.js";
import { progressLine } from "./progress.js";

interface CalibrateFlags extends CommonFlags, SubjectFlags {}

/** `femo calibrate`: what TeaCache and MagCache go by, measured on a model, as JSON. */
export const calibrateCommand = (context: CommandContext): Command =>
  addSubjects(addDrawing(new Command("calibrate"), { images: "1", batchSize: "4" }), "the model's examples")
    .description("measure what a caching method needs to know of a model; prints it as JSON")
    .addArgument(new Argument("<method>", "which").choices(calibratedMethods))
    .action((method: CalibratedMethod, flags: CalibrateFlags) => run(method, flags, context));

async function run(method: CalibratedMethod, flags: CalibrateFlags, { signal }: CommandContext): Promise<void> {
  const pipeline = await openPipeline(flags, signal);
  const progress = progressLine(flags.quiet);
  try {
    const found = await calibrate(pipeline, method, {
      ...requestOf(flags),
      ...subjectsOf(flags),
      signal,
      onStep: ({ step, numInferenceSteps, images }) =>
        progress.show(`image ${(images[0] as number) + 1}, step ${step + 1}`, (step + 1) / numInferenceSteps),
    });
    progress.clear();
    print(jsonText(found, 2));
  } finally {
    progress.clear();
    await pipeline.close();
  }
}
