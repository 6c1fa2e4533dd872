import type { SolverTarget } from "../../methods/index.js";
import type { DiffusionPipeline, GenerateOptions, GenerationResult } from "../../pipelines/index.js";
import type { MultistepSolver } from "../../samplers/index.js";
import { convergedRequest } from "../converged.js";
import type { StudyOptions } from "../study-options.js";
import { keptTargets, type TargetForm, type TargetImages, type TargetStore } from "./targets.js";

/** How the images of a fit are drawn. */
export interface FitDrawingOptions extends StudyOptions {
  readonly numInferenceSteps: number;
  readonly target: SolverTarget;
  readonly convergedSteps: number;
  readonly store: TargetStore | undefined;
  readonly onProgress: ((progress: { readonly phase: string; readonly done: number }) => void) | undefined;
}

/** Draws what a fit is about: images to come near to, and what solvers make of the same noise. */
export class FitDrawing {
  readonly #pipeline: DiffusionPipeline;
  readonly #options: FitDrawingOptions;

  constructor(pipeline: DiffusionPipeline, options: FitDrawingOptions) {
    this.#pipeline = pipeline;
    this.#options = options;
  }

  /** Images to come near to. @param guided how, if not as the fit is */
  async targets<T>(
    phase: string,
    images: TargetImages,
    form: TargetForm<T>,
    guided: Partial<GenerateOptions> = {},
  ): Promise<T[]> {
    const { target, store, sampler, timestepSpacing, numInferenceSteps } = this.#options;
    const own = { ...this.#guidance(guided), ...withoutUndefined({ sampler, timestepSpacing, numInferenceSteps }) };
    const settings = target === "reference" ? own : await this.#converged(own, images);
    const draw = (part: GenerateOptions, before: number) => this.#draw(phase, part, images.subjects.count, before);
    return keptTargets(this.#pipeline.name, images, settings, form, store, draw);
  }

  /** What a solver draws. @param guided how, if not as the fit is */
  solved(
    phase: string,
    solver: MultistepSolver,
    images: TargetImages,
    guided: Partial<GenerateOptions> = {},
  ): Promise<GenerationResult> {
    const steps = { sampler: solver, numInferenceSteps: solver.timesteps.length };
    return this.#draw(phase, { ...this.request(images), ...guided, ...steps }, images.subjects.count);
  }

  /** Images as the fit guides them, without a sampler. */
  request({ subjects, seed }: TargetImages): GenerateOptions {
    return { ...this.#guidance({}), ...subjects.slice(), seed };
  }

  #guidance(guided: Partial<GenerateOptions>): GenerateOptions {
    const { guidanceScale, guidanceChannels, batchSize, signal } = this.#options;
    return { ...withoutUndefined({ guidanceScale, guidanceChannels, batchSize, signal }), ...guided };
  }

  async #converged(own: GenerateOptions, { subjects }: TargetImages): Promise<GenerateOptions> {
    const { convergedSteps: numInferenceSteps } = this.#options;
    const one = { ...own, ...subjects.slice(0, 1), numInferenceSteps };
    const { timestepSpacing } = await convergedRequest(this.#pipeline, one, numInferenceSteps);
    return { ...own, ...withoutUndefined({ timestepSpacing }), numInferenceSteps };
  }

  /** @param before how many of the images come before those of the request */
  #draw(phase: string, request: GenerateOptions, of: number, before = 0): Promise<GenerationResult> {
    let steps = 0; // of all images
    return this.#pipeline.generate({
      ...request,
      onStep: ({ images, numInferenceSteps }) => {
        steps += images.length;
        this.#options.onProgress?.({ phase, done: (before + steps / numInferenceSteps) / of });
      },
    });
  }
}

const withoutUndefined = <T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as never;
