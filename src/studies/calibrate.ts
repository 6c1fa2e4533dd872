import { concat, type Observed, relativeChange } from "../denoising/index.js";
import { FemoError } from "../errors.js";
import { type Method, uncachedMethod } from "../methods/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../pipelines/index.js";
import { graphNames } from "../tracing/index.js";
import { fitPolynomial } from "./polynomial-fit.js";
import type { StudyOptions } from "./study-options.js";
import { studySubjects } from "./subjects.js";

/** The methods that go by numbers of the model. */
export const calibratedMethods = ["teaCache", "magCache"] as const;
/** One of `calibratedMethods`. */
export type CalibratedMethod = (typeof calibratedMethods)[number];

/** What is drawn for it; as for `generate`, and all of it uncached. */
export interface CalibrateOptions extends StudyOptions, Pick<GenerateOptions, "numImagesPerPrompt" | "onStep"> {}

/** Fields of `cache`. */
export interface Calibrations {
  readonly teaCache: { readonly method: "teaCache"; readonly coefficients: readonly number[] };
  readonly magCache: { readonly method: "magCache"; readonly ratios: readonly number[] };
}

/** Of TeaCache's polynomial. */
const DEGREE = 4;
const LEVEL = "stack";
const MARK = "modulated";

/**
 * What TeaCache or MagCache needs to know of a model, measured on uncached images. R is what all blocks change of a step.
 *
 * TeaCache: the polynomial of degree 4 from |u_i - u_(i-1)| / |u_(i-1)|, u what enters the first attention, to
 * |R_i - R_(i-1)| / |R_(i-1)|, sums of magnitudes over the rows of an image, by least squares over all images and steps.
 * MagCache: of each step the mean of |R_i| / |R_(i-1)| over images, rows and tokens; the first is 1.
 * @returns fields for `cache`: `{ ...await calibrate(pipeline, "magCache"), threshold: 0.1 }`
 * @throws FemoError E_OPTION if an option is out of range, the model does not have what is looked at, or too little is
 *   drawn to fit; the signal's reason if it was aborted
 */
export async function calibrate<M extends CalibratedMethod>(
  pipeline: DiffusionPipeline,
  method: M,
  options?: CalibrateOptions,
): Promise<Calibrations[M]>;
export async function calibrate(
  pipeline: DiffusionPipeline,
  method: CalibratedMethod,
  options: CalibrateOptions = {},
): Promise<Calibrations[CalibratedMethod]> {
  if (!calibratedMethods.includes(method)) {
    throw new FemoError("E_OPTION", `method: expected one of ${calibratedMethods.join(", ")}, found ${method}`);
  }
  checkModel(pipeline, method);
  const request = { ...options, ...studySubjects(pipeline, options).slice() };
  const draw = async (see: Seen) => pipeline.observe(request, recording(method), inPairs(see));
  if (method === "teaCache") {
    const points: [number, number][] = [];
    await draw((now, before) => {
      points.push([changeOf(now.mark, before.mark), changeOf(now.residual, before.residual)]);
    });
    return { method, coefficients: fitPolynomial(points, DEGREE) };
  }
  const ratios: number[][] = [[1]];
  await draw((now, before, step) => {
    ratios[step] = [...(ratios[step] ?? []), ...tokenRatios(now, before)];
  });
  return { method, ratios: ratios.map((ofStep) => ofStep.reduce((a, b) => a + b, 0) / ofStep.length) };
}

function checkModel({ levels, marks }: DiffusionPipeline, method: CalibratedMethod): void {
  const missing = !levels.includes(LEVEL)
    ? `level "${LEVEL}"`
    : method === "teaCache" && !marks.includes(MARK) && `mark "${MARK}"`;
  if (missing)
    throw new FemoError("E_OPTION", `calibrate: ${method} needs a model with the ${missing}, and this one has none`);
}

/** Computes everything, and gives out what is measured. */
const recording = (method: CalibratedMethod): Method => ({
  ...uncachedMethod,
  cuts: { full: { capture: { level: LEVEL }, ...(method === "teaCache" && { give: [MARK] }) } },
});

/** What a step showed of an image, all its rows one after the other. */
interface Measured {
  readonly mark: readonly Float32Array[];
  readonly residual: readonly Float32Array[];
  /** Elements of a token. */
  readonly width: number;
}

type Seen = (now: Measured, before: Measured, step: number) => void;

/** Shows each step of an image with the one before it. */
function inPairs(see: Seen): (image: number, step: number, outputs: Observed) => void {
  const last = new Map<number, Measured>();
  return (image, step, outputs) => {
    const residual = Object.entries(outputs).find(([name]) => name.startsWith(graphNames.feature("")))?.[1];
    const now = {
      mark: outputs[graphNames.mark(MARK)]?.rows ?? [],
      residual: residual?.rows ?? [],
      width: residual?.dims.at(-1) ?? 1,
    };
    const before = last.get(image);
    if (before) see(now, before, step);
    last.set(image, now);
  };
}

/** Of all rows of an image together. */
const changeOf = (now: readonly Float32Array[], before: readonly Float32Array[]): number =>
  relativeChange(concat(now), concat(before), "l1");

/** |R_i| / |R_(i-1)| of every token of every row, euclidean. */
const tokenRatios = (now: Measured, before: Measured): number[] =>
  now.residual.flatMap((row, r) => {
    const then = before.residual[r] as Float32Array;
    return Array.from({ length: row.length / now.width }, (_, token) => {
      const part = [token * now.width, (token + 1) * now.width] as const;
      return norm(row.subarray(...part)) / norm(then.subarray(...part));
    });
  });

const norm = (x: Float32Array): number => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
