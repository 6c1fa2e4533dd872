import { existsSync } from "node:fs";
import { Argument, Command, Option } from "commander";
import { FemoError } from "../errors.js";
import { type SolverTarget, solverTargets } from "../methods/index.js";
import {
  type CalibratedMethod,
  calibrate,
  calibratedMethods,
  fitSolver,
  fittedSolverOf,
  type SolverFitState,
} from "../studies/index.js";
import { textOf, writeFiles } from "./files.js";
import {
  addDrawing,
  addSubjects,
  type CommandContext,
  type CommonFlags,
  integer,
  listOf,
  number,
  openPipeline,
  requestOf,
  type SubjectFlags,
  subjectsOf,
} from "./options.js";
import { jsonText, print } from "./output.js";
import { progressLine } from "./progress.js";
import { TargetFolder } from "./target-folder.js";

const SOLVER = "solver";

interface CalibrateFlags extends CommonFlags, SubjectFlags {
  fullSteps?: number;
  target?: SolverTarget;
  convergedSteps?: number;
  images?: number;
  heldOut?: number;
  guidanceScales?: number[];
  iterations?: number;
  state?: string;
  targets?: string;
}

/** `femo calibrate`: what TeaCache and MagCache go by, or a solver of few steps, found on a model, as JSON. */
export const calibrateCommand = (context: CommandContext): Command =>
  addSubjects(addDrawing(new Command("calibrate"), { images: "1", batchSize: "4" }), "the model's examples")
    .description(
      "measure what a caching method needs to know of a model, or fit a solver of few steps to it; prints it as JSON",
    )
    .addArgument(new Argument("<method>", "which").choices([...calibratedMethods, SOLVER]))
    .option("--full-steps <n>", "of a solver: runs of the network", integer)
    .addOption(
      new Option("--target <name>", "of a solver: what images are to come near to (default: converged)").choices([
        ...solverTargets,
      ]),
    )
    .option("--converged-steps <n>", "of a solver: steps of the converged images (default: 200)", integer)
    .option("--images <n>", "of a solver: how many it is fitted on (default: 96)", integer)
    .option("--held-out <n>", "of a solver: how many others judge it (default: 32)", integer)
    .option("--guidance-scales <list>", "of a solver: others at which it is judged too", listOf(number))
    .option("--iterations <n>", "of a solver: steps of the fit (default: 6)", integer)
    .option(
      "--state <file>",
      "of a solver: JSON file to go on from, if it is there, and written at the beginning and after every step",
    )
    .option(
      "--targets <folder>",
      "of a solver: keeps the images to come near to, for other fits too (default: beside the state, as <file>.targets)",
    )
    .action((method: CalibratedMethod | typeof SOLVER, flags: CalibrateFlags) => run(method, flags, context));

async function run(
  method: CalibratedMethod | typeof SOLVER,
  flags: CalibrateFlags,
  { signal }: CommandContext,
): Promise<void> {
  const fit = method === SOLVER ? solverOptions(flags, signal) : undefined;
  const pipeline = await openPipeline(flags, signal);
  const progress = progressLine(flags.quiet);
  const common = { ...requestOf(flags), ...subjectsOf(flags), signal };
  try {
    const found = fit
      ? await fitSolver(pipeline, {
          ...common,
          ...fit,
          onProgress: ({ phase, done }) => progress.show(phase, done),
        })
      : await calibrate(pipeline, method as CalibratedMethod, {
          ...common,
          onStep: ({ step, numInferenceSteps, images }) =>
            progress.show(`image ${(images[0] as number) + 1}, step ${step + 1}`, (step + 1) / numInferenceSteps),
        });
    progress.clear();
    print(jsonText("state" in found ? fittedSolverOf(found) : found, 2));
    if ("kept" in found && !found.kept) {
      process.stderr.write(
        "On images that it was not fitted on, the solver is no better than the one it began with.\n",
      );
    }
  } finally {
    progress.clear();
    await pipeline.close();
  }
}

/** @throws FemoError E_OPTION if there is no number of runs, E_FILE or E_CONFIG if the state cannot be read */
function solverOptions(flags: CalibrateFlags, signal: AbortSignal) {
  const { fullSteps, target, convergedSteps, images, heldOut, guidanceScales, iterations, state: path } = flags;
  const targets = flags.targets ?? (path === undefined ? undefined : `${path}.targets`);
  if (fullSteps === undefined) {
    throw new FemoError("E_OPTION", "--full-steps: expected how many times a solver runs the network, found none");
  }
  return {
    ...{ fullSteps, target, convergedSteps, images, heldOut, guidanceScales, iterations },
    ...(targets !== undefined && { targets: new TargetFolder(targets) }),
    ...(path !== undefined && {
      state: existsSync(path) ? stateOf(path) : undefined,
      onState: (state: SolverFitState) => writeFiles([{ path, content: jsonText(state) }], signal),
    }),
  };
}

function stateOf(path: string): SolverFitState {
  try {
    return JSON.parse(textOf(path)) as SolverFitState;
  } catch (cause) {
    if (cause instanceof FemoError) throw cause;
    throw new FemoError("E_CONFIG", `${path}: expected the state of a fit as JSON, found something else`, { cause });
  }
}
