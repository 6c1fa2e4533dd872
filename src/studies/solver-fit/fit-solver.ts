import * as z from "zod/mini";
import { concat } from "../../denoising/index.js";
import { FemoError } from "../../errors.js";
import type { RgbImage } from "../../images/index.js";
import type { FittedSolver, SolverTarget } from "../../methods/index.js";
import { psnr } from "../../metrics/index.js";
import type { DiffusionPipeline, GenerateOptions, GenerationReport } from "../../pipelines/index.js";
import { checkInteger } from "../../pipelines/option-types.js";
import {
  type MultistepSolver,
  multistepSolver,
  processOf,
  type SchedulerConfig,
  seedAfter,
  trainingChainDefaults,
} from "../../samplers/index.js";
import { safeParse, schemaIssues } from "../../schema-issues.js";
import { type Quality, qualityOf } from "../quality.js";
import type { StudyOptions } from "../study-options.js";
import { studySubjects } from "../subjects.js";
import { FitDrawing } from "./drawing.js";
import { dampedStep, meanLogError, normalEquations, slopeOf, type Targets } from "./gauss-newton.js";
import { type SolverParameters, solverParameters } from "./parameters.js";
import { type StartingSolver, startingSolvers } from "./start.js";
import { imageTargets, latentTargets, type TargetImages, type TargetStore } from "./targets.js";
import { endOf, type Walk, Walker } from "./walk.js";

/** What a fit has come to: plain data, with which another goes on. */
export interface SolverFitState {
  readonly solver: MultistepSolver;
  /** Of the starting solver. */
  readonly start: { readonly name: string; readonly solver: MultistepSolver };
  readonly iteration: number;
  /** Mean of log mean squares over the images that it is fitted on, before any step and now. */
  readonly errors: readonly [first: number, now: number];
  readonly damping: number;
}

/** Options not described here are those of `generate`: what is drawn is the model's examples, in turns, if nothing is named. */
export interface FitSolverOptions extends StudyOptions {
  /** n: runs of the network, at least 2. */
  fullSteps: number;
  /**
   * What images are to come near to: those of the model's own sampler in `numInferenceSteps`, or those to which it converges
   * in `convergedSteps`. Default "converged".
   */
  target?: SolverTarget | undefined;
  /** Default 200. */
  convergedSteps?: number | undefined;
  /** Images to fit on, and others to judge by. Default 96 and 32. */
  images?: number | undefined;
  heldOut?: number | undefined;
  /** Steps of Gauss-Newton at most. Default 6. */
  iterations?: number | undefined;
  /** Earlier steps of which weights are free. Default: all up to 7 runs, 4 beyond. */
  history?: number | undefined;
  /** Guidance scales at which to judge it too, besides its own: the range of those around that where it is better is told. */
  guidanceScales?: readonly number[] | undefined;
  /** Keeps the images to come near to, for another fit or for this one if it is cut off. */
  targets?: TargetStore | undefined;
  /** Goes on from what another fit came to. */
  state?: SolverFitState | undefined;
  /** Called with what it begins with and after every step of the fit, and waited for. */
  onState?: ((state: SolverFitState) => unknown) | undefined;
  /** Told after every step of the network. */
  onProgress?: ((progress: { readonly phase: string; readonly done: number }) => void) | undefined;
}

/** Images of solvers beside their targets, on seeds that were not fitted on. PSNR in dB. */
export interface SolverJudgement {
  readonly guidanceScale: number;
  readonly start: Quality;
  readonly fitted: Quality;
}

/** What a fit came to. */
export interface SolverFit {
  readonly state: SolverFitState;
  /** At the guidance scale of the fit first. */
  readonly heldOut: readonly [SolverJudgement, ...SolverJudgement[]];
  /** Whether the fitted solver is better there; if not, take the start. */
  readonly kept: boolean;
  readonly target: SolverTarget;
  /** Of the target. */
  readonly numInferenceSteps: number;
}

/** A fit as an entry of a model's `solvers.json`: the fitted solver, or, where that was no better, the one it began with. */
export function fittedSolverOf({ state, heldOut, kept, target, numInferenceSteps }: SolverFit): FittedSolver {
  const [own, ...others] = heldOut;
  const { sampler: _, ...solver } = kept ? state.solver : state.start.solver;
  const told = ({ mean, median, tenthPercentile }: Quality) => ({ mean, median, tenthPercentile });
  const isBetter = ({ fitted, start }: SolverJudgement): boolean => !kept || fitted.mean > start.mean;
  /** The furthest scale on one side up to which all are better. */
  const reach = (side: 1 | -1): number => {
    const beyond = others
      .filter(({ guidanceScale }) => side * (guidanceScale - own.guidanceScale) > 0)
      .toSorted((a, b) => side * (a.guidanceScale - b.guidanceScale));
    const worse = beyond.findIndex((judged) => !isBetter(judged));
    return (worse === -1 ? beyond : beyond.slice(0, worse)).at(-1)?.guidanceScale ?? own.guidanceScale;
  };
  return {
    ...solver,
    guidanceScale: [reach(-1), reach(1)],
    measured: {
      ...{ target, numInferenceSteps, images: own.fitted.values.length, guidanceScale: own.guidanceScale },
      psnr: told(kept ? own.fitted : own.start),
      psnrOfStart: told(own.start),
    },
  };
}

/** Between the seeds that are fitted on and those that judge. */
const HELD_OUT_SEED = 1_000_000;

/**
 * Fits a linear multistep solver to a model: the timesteps of its n runs and its table together, so that images of few runs
 * come near to those of many from the same noise. It begins with the best of published and placed solvers and goes on by
 * Gauss-Newton on the mean log squared error, with derivatives by differences: only the network's runs are needed.
 * @throws FemoError E_OPTION if an option is out of range or the model has no linear solver; the signal's reason if aborted
 */
export async function fitSolver(pipeline: DiffusionPipeline, options: FitSolverOptions): Promise<SolverFit> {
  const { fullSteps, target = "converged", images = 96, heldOut = 32, iterations = 6, convergedSteps = 200 } = options;
  const { seed = 0, numInferenceSteps = pipeline.defaults.numInferenceSteps } = options;
  const { history = fullSteps <= 7 ? fullSteps : 4, guidanceScales = [], onState, onProgress } = options;
  checkInteger("fullSteps", fullSteps, 2, 100);
  checkInteger("images", images, 1, 100_000);
  checkInteger("heldOut", heldOut, 1, 100_000);
  checkInteger("iterations", iterations, 0, 1000);
  checkInteger("history", history, 1, 100);

  const subjects = studySubjects(pipeline, options);
  const imagesFrom = (first: number, count: number): TargetImages => ({
    subjects: subjects.inTurns(count),
    seed: seedAfter(seed, first),
  });
  const [fitting, judging] = [imagesFrom(0, images), imagesFrom(HELD_OUT_SEED, heldOut)];
  const settings = { ...options, numInferenceSteps, target, convergedSteps, store: options.targets, onProgress };
  const drawing = new FitDrawing(pipeline, settings);

  const given = options.state && checkedState(options.state, fullSteps);
  const state = given && given.iteration >= iterations ? given : await fitted(given);

  const judgements = await judged(drawing, judging, state, guidanceScales);
  const [{ fitted: now, start }] = judgements;
  return {
    state,
    heldOut: judgements,
    kept: now.mean > start.mean,
    target,
    numInferenceSteps: target === "converged" ? convergedSteps : numInferenceSteps,
  };

  async function fitted(begun: SolverFitState | undefined): Promise<SolverFitState> {
    const targets = concat(await drawing.targets("targets", fitting, latentTargets));
    const walker = await Walker.of(pipeline, drawing.request(fitting));
    const walked = { targets, size: targets.length / images, told, walker };
    let { state, walk }: Reached = begun ? { state: begun } : await bestStart(walked);
    if (!begun) await onState?.(state);
    const parameters = solverParameters(state.start.solver, history, trainTimesteps(pipeline.scheduler));
    while (state.iteration < iterations) {
      const next = await improved({ state, walk }, { ...walked, parameters });
      ({ state, walk } = next);
      await onState?.(state);
      if (!next.better) break;
    }
    return state;
  }

  function told(phase: string, done = 0, of = 1) {
    return (run: number, ofRuns: number) => onProgress?.({ phase, done: (done + run / ofRuns) / of });
  }

  /** The best of what is best of each kind on a few of the images: a few say little of kinds, and there are many starts. */
  async function bestStart({ targets, size, walker }: Omit<Problem, "parameters">): Promise<Reached> {
    const all = startingSolvers(pipeline, fullSteps, numInferenceSteps);
    const few = Math.min(images, IMAGES_OF_STARTS);
    const fewTargets = { targets: targets.subarray(0, few * size), size };
    const fewWalked = await Walker.of(pipeline, drawing.request(imagesFrom(0, few)));
    const { inOrder } = await ranked(all, fewWalked, fewTargets, "starts");
    const hopeful = inOrder.filter(({ kind }, i) => inOrder.findIndex((other) => other.kind === kind) === i);
    const { best } = await ranked(hopeful, walker, { targets, size }, "best starts");
    if (!best) {
      throw new FemoError("E_OPTION", `fullSteps: the model has no linear solver of ${fullSteps} runs to begin with`);
    }
    const { error, walk } = best;
    const { name, solver } = best.start;
    const state = { solver, start: { name, solver }, iteration: 0, errors: [error, error], damping: 1e-2 } as const;
    return { state, walk };
  }

  async function ranked(starts: readonly StartingSolver[], walker: Walker, near: Targets, phase: string) {
    let best: { start: StartingSolver; walk: Walk; error: number } | undefined;
    const tried: { start: StartingSolver; error: number }[] = [];
    for (const [i, start] of starts.entries()) {
      const walk = await walker.walk(start.solver, told(phase, i, starts.length));
      const error = meanLogError(endOf(walk), near);
      tried.push({ start, error });
      if (!best || error < best.error) best = { start, walk, error };
    }
    return { best, inOrder: tried.toSorted((a, b) => a.error - b.error).map(({ start }) => start) };
  }
}

/** Images on which all starts are tried. */
const IMAGES_OF_STARTS = 8;

/** Of a diffusion; undefined of a flow. */
const trainTimesteps = (scheduler: SchedulerConfig): number | undefined =>
  processOf(scheduler) === "flow"
    ? undefined
    : (scheduler.numTrainTimesteps ?? trainingChainDefaults.numTrainTimesteps);

/** Judges start and fit by images that were not fitted on, at the guidance of the fit and at other scales. */
async function judged(
  drawing: FitDrawing,
  images: TargetImages,
  { solver, start }: SolverFitState,
  guidanceScales: readonly number[],
): Promise<[SolverJudgement, ...SolverJudgement[]]> {
  const judge = async (guided: Partial<GenerateOptions>) => {
    const targets = await drawing.targets("held-out targets", images, imageTargets, guided);
    const quality = async (by: MultistepSolver) => {
      const { images: drawn, report } = await drawing.solved("held-out", by, images, guided);
      return { report, of: qualityOf(drawn.map((image, i) => psnr(image, targets[i] as RgbImage))) };
    };
    const { report, of } = await quality(start.solver);
    const option = scaleOf(report);
    const fitted = (await quality(solver)).of;
    return { option, judgement: { guidanceScale: report[option] as number, start: of, fitted } };
  };
  const { option, judgement: own } = await judge({});
  const others: SolverJudgement[] = [];
  for (const scale of guidanceScales) {
    if (scale !== own.guidanceScale) others.push((await judge({ [option]: scale })).judgement);
  }
  return [own, ...others];
}

const numbers = z.array(z.number());
const solverSchema = z.looseObject({ timesteps: numbers, table: z.array(numbers) });
const stateSchema = z.strictObject({
  solver: solverSchema,
  start: z.strictObject({ name: z.string(), solver: solverSchema }),
  iteration: z.int().check(z.nonnegative()),
  errors: z.tuple([z.number(), z.number()]),
  damping: z.number().check(z.positive()),
});

/** @throws FemoError E_OPTION if it is no state of a fit of so many runs */
function checkedState(state: SolverFitState, fullSteps: number): SolverFitState {
  const parsed = safeParse(stateSchema, state);
  if (!parsed.success) {
    throw new FemoError("E_OPTION", `state: ${schemaIssues(parsed.error, "the state").join("; ")}`);
  }
  const solvers = { solver: state.solver, "start.solver": state.start.solver };
  for (const [name, solver] of Object.entries(solvers)) {
    const { length } = multistepSolver(solver, `state: ${name}`).timesteps;
    if (length === fullSteps) continue;
    throw new FemoError("E_OPTION", `state: ${name}: expected ${fullSteps} runs, as fullSteps says, found ${length}`);
  }
  return state;
}

/** What is to be solved, of which nobody knows derivatives. */
interface Problem extends Targets {
  readonly parameters: SolverParameters;
  readonly walker: Walker;
  /** Who is told of the runs of a walk, which is the next of several. */
  told(phase: string, done?: number, of?: number): Parameters<Walker["walk"]>[1];
}

/** A state, and where it brings the points, if that was seen. */
interface Reached {
  readonly state: SolverFitState;
  readonly walk?: Walk | undefined;
}

/** Steps that are taken with the same slopes, which cost more than all else. */
const STEPS_PER_SLOPES = 3;
/** By how much less the mean log error must be for another of them. */
const WORTHWHILE = 0.01;

/** Steps of Gauss-Newton from slopes at the state, with the damping that serves best. */
async function improved({ state, walk }: Reached, problem: Problem): Promise<Required<Reached> & { better: boolean }> {
  const { parameters, walker, told } = problem;
  const here = walk ?? (await walker.walk(state.solver, told("fit")));
  const values = parameters.of(state.solver);
  const slopes: Float32Array[] = [];
  for (const [p, step] of parameters.steps.entries()) {
    const moved = parameters.solver(values.with(p, (values[p] as number) + step));
    const there = await walker.walk(moved, told("slopes", p, parameters.count), here);
    slopes.push(slopeOf(endOf(here), endOf(there), step));
  }
  const before = meanLogError(endOf(here), problem);
  let best = { error: before, walk: here, damping: state.damping };
  for (let taken = 0; taken < STEPS_PER_SLOPES; taken++) {
    const from = best;
    const equations = normalEquations(endOf(from.walk), slopes, problem);
    const start = parameters.of(from.walk.solver);
    const attempt = async (damping: number): Promise<boolean> => {
      const change = dampedStep(equations, damping);
      if (!change) return false;
      const solver = parameters.solver(start.map((value, k) => value + (change[k] as number)));
      const there = await walker.walk(solver, told("step"), from.walk);
      const error = meanLogError(endOf(there), problem);
      const isBetter = error < best.error;
      if (isBetter) best = { error, walk: there, damping };
      return isBetter;
    };
    const helps = await attempt(from.damping);
    if (helps) await attempt(0.1 * from.damping);
    for (const factor of helps ? [] : [10, 100, 1000]) if (await attempt(factor * from.damping)) break;
    if (from.error - best.error < WORTHWHILE) break;
  }
  return {
    better: best.error < before,
    walk: best.walk,
    state: {
      ...state,
      solver: best.walk.solver,
      iteration: state.iteration + 1,
      errors: [state.errors[0], best.error],
      damping: best.damping,
    },
  };
}

/** By which option a model is guided. */
const scaleOf = ({ trueCfgScale }: GenerationReport): "trueCfgScale" | "guidanceScale" =>
  trueCfgScale === undefined ? "guidanceScale" : "trueCfgScale";
