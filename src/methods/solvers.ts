import * as z from "zod/mini";
import { FemoError } from "../errors.js";
import { type MultistepSolver, multistepFields, multistepSolver } from "../samplers/index.js";
import { parseMeasured } from "./measured-file.js";
import { type SolverTarget, solverTargets } from "./solver-targets.js";

/** A solver that was fitted to a model, as `femo calibrate solver` prints it, and what it was measured to do. */
export interface FittedSolver extends Omit<MultistepSolver, "sampler"> {
  /** Of the guidance scales, or true CFG scales, at which it was tried and was better than what it began with. */
  readonly guidanceScale: readonly [lowest: number, highest: number];
  readonly measured: MeasuredSolver;
}

/** On images of seeds that it was not fitted on. */
export interface MeasuredSolver {
  readonly target: SolverTarget;
  readonly numInferenceSteps: number;
  readonly images: number;
  readonly guidanceScale: number;
  /** dB against the target, and the same of the published solver with which the fit began. */
  readonly psnr: PsnrOfImages;
  readonly psnrOfStart: PsnrOfImages;
}

/** Over images, in dB. */
export interface PsnrOfImages {
  readonly mean: number;
  readonly median: number;
  readonly tenthPercentile: number;
}

const number = z.number();
const psnr = z.strictObject({ mean: number, median: number, tenthPercentile: number });
const schema = z.array(
  z.strictObject({
    ...multistepFields,
    guidanceScale: z.tuple([number, number]),
    measured: z.strictObject({
      target: z.enum(solverTargets),
      numInferenceSteps: number,
      images: number,
      guidanceScale: number,
      psnr,
      psnrOfStart: psnr,
    }),
  }),
);

/**
 * The solvers that were fitted to a model.
 * @param json the content of its file of solvers
 * @param file named in errors
 * @throws FemoError E_CONFIG if it is malformed or a solver is none
 */
export function solversFromJson(json: unknown, file: string): readonly FittedSolver[] {
  const solvers = parseMeasured(schema, json, file);
  for (const [i, solver] of solvers.entries()) solverOf(solver, `${file}: ${i}`, "E_CONFIG");
  return solvers;
}

const solverOf = (
  { guidanceScale: _, measured: __, ...solver }: FittedSolver,
  where: string,
  code: "E_OPTION" | "E_CONFIG",
): MultistepSolver => multistepSolver({ sampler: "multistep", ...solver }, where, code);

/** A fitted solver in place of the sampler. */
export interface SolverInPlace {
  readonly solver: MultistepSolver;
  /** What does not fit its measurement, a sentence each. */
  readonly notes: readonly string[];
}

/**
 * The solver that a choice of cache asks for.
 * @param guidanceScale of the images; left out, it is not looked at
 * @throws FemoError E_OPTION if the model has none of so many runs
 */
export function solverInPlace(
  { fullSteps, target }: { readonly fullSteps: number; readonly target?: SolverTarget | undefined },
  solvers: readonly FittedSolver[],
  guidanceScale?: number,
): SolverInPlace {
  const wanted = target === undefined ? solverTargets : [target];
  const [fitted] = wanted.flatMap((one) =>
    solvers.filter(({ timesteps, measured }) => timesteps.length === fullSteps && measured.target === one),
  );
  if (!fitted) {
    const those = solvers.filter(({ measured }) => wanted.includes(measured.target));
    const known = those.map(({ timesteps }) => timesteps.length).join(", ");
    const fittedTo = target === undefined ? "" : ` to ${target} images`;
    throw new FemoError(
      "E_OPTION",
      `cache: fullSteps: expected ${known ? `one of ${known}` : `a model to which solvers were fitted${fittedTo}`}, found ` +
        `${fullSteps}: the model has no solver of so many runs${known ? fittedTo : ""}. Fit one with \`femo calibrate solver\`.`,
    );
  }
  const [lowest, highest] = fitted.guidanceScale;
  const isTried = guidanceScale === undefined || (guidanceScale >= lowest && guidanceScale <= highest);
  return {
    solver: solverOf(fitted, "cache", "E_OPTION"),
    notes: isTried
      ? []
      : [
          `The calibrated solver of ${fullSteps} runs was tried at guidance ${lowest} to ${highest}, not at ${guidanceScale}: ` +
            "its measured error does not hold here.",
        ],
  };
}
