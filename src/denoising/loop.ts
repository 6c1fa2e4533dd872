import { FemoError } from "../errors.js";
import { type Outcome, X0 } from "../methods/index.js";
import type { Cut } from "../tracing/index.js";
import { allFinite, concat, relativeChange } from "./arrays.js";
import type { Cohort, ImageRun } from "./cohort.js";
import { isFull } from "./feature-state.js";
import type { Denoising, DenoisingStep } from "./records.js";
import { type Cost, StepRunner } from "./step-runner.js";

/** What becomes of some images in a step: decided by the policy and the guard, run, judged, and handed to the sampler. */
export class Loop {
  readonly #run: Denoising;
  readonly #runner: StepRunner;

  constructor(run: Denoising) {
    this.#run = run;
    this.#runner = new StepRunner(run);
  }

  /** Looks, and asks the policy what each image's step is to be. */
  async decide(cohort: Cohort, step: number) {
    const { policy } = this.#run.method;
    const looks: (Cost & { readonly rows: readonly Float32Array[] })[] = [];
    for (const look of policy.looks) looks.push(await this.#runner.look(look, cohort, step));
    const kinds = cohort.images.map((image) => {
      const own = cohort.rowsOf([image]);
      const values = looks.map(({ rows }) => concat(own.map((row) => rows[row] as Float32Array)));
      const changes = policy.looks.map(({ against, measure }, i) => {
        const then = image.seen?.[against === "last step" ? "lastStep" : "lastFull"][i];
        return then && relativeChange(values[i] as Float32Array, then, measure);
      });
      image.looked = { values, changes };
      image.memoryBefore = image.memory;
      return this.#kindFor(image, step);
    });
    const looked: Cost = {
      durationMs: looks.reduce((sum, { durationMs }) => sum + durationMs, 0),
      flops: looks.reduce((sum, { flops }) => sum + flops, 0),
    };
    return { ...looked, parts: await cohort.split(kinds) };
  }

  /** What the policy decides; where the guard wants a full step, it is asked whether it would have taken one anyway. */
  #kindFor(image: ImageRun, step: number): string {
    const { method } = this.#run;
    const ask = (due: boolean) => method.policy.decide(image.memoryBefore, this.#at(step, due), image.looked.changes);
    const own = ask(false);
    image.due &&= !isFull(this.#cutOf(own.kind), method);
    const { memory, kind } = image.due ? ask(true) : own;
    image.memory = memory;
    return kind;
  }

  /** Runs a step of one kind; the cohorts that come out of it. */
  async *step(
    cohort: Cohort,
    kind: string,
    step: number,
    looked: Cost,
    again = false,
  ): AsyncGenerator<DenoisingStep, Cohort[]> {
    const { method, sampler } = this.#run;
    const cut = this.#cutOf(kind);
    const full = isFull(cut, method);
    const { outputs, finite, errors, ...ran } = await this.#runner.run(cut, cohort, step);
    const guarded = new Set(cohort.images.filter(({ due }) => due).map(({ index }) => index));
    const record = {
      step,
      timestep: sampler.timesteps[step] as number,
      kind,
      full,
      images: cohort.images.map(({ index }) => index),
      ...ran,
      durationMs: looked.durationMs + ran.durationMs,
      flops: looked.flops + ran.flops,
    };

    const redo = cohort.images.map((image, i) => {
      const forecastError = errors?.[i]?.relativeError;
      image.due = false;
      if (!finite[i] && !full && method.errorBound !== undefined) {
        image.due = true;
        return this.#kindFor(image, step);
      }
      const other = this.#judge(image, step, { kind, forecastError, finite: finite[i] as boolean });
      if (full && forecastError !== undefined) image.due = forecastError > (method.errorBound ?? Infinity);
      return again ? undefined : other;
    });
    if (cut !== X0 && cut.capture && redo.some((other) => other !== undefined)) {
      throw new FemoError("E_GRAPH", `a step of the kind "${kind}" cannot run again: its features have been taken in`);
    }
    const finiteOf = new Map(cohort.images.map((image, i) => [image, finite[i]]));
    const outputOf = new Map(cohort.images.map((image, i) => [image, outputs[i] as Float32Array]));
    const after: Cohort[] = [];
    for (const { cohort: part, value: other } of await cohort.split(redo)) {
      const images = part.images.map(({ index }) => index);
      const share = images.length / record.images.length;
      const wanted = images.filter((index) => guarded.has(index));
      const own = {
        ...record,
        images,
        durationMs: share * record.durationMs,
        flops: share * record.flops,
        ...(wanted.length > 0 && { guarded: wanted }),
      };
      if (other !== undefined) {
        yield { ...own, rejected: true, latents: concat(part.images.map(({ state }) => state.latent)) };
        after.push(...(yield* this.step(part, other, step, { durationMs: 0, flops: 0 }, true)));
        continue;
      }
      const bad = part.images.find((image) => !finiteOf.get(image));
      if (bad) throw notFinite("the network's output is", bad.index, step);
      const walked = full && method.hindsight ? await this.#walkAgain(part, step, outputOf) : NOTHING;
      for (const image of part.images) {
        this.#advance(image, outputOf.get(image) as Float32Array, step);
        if (full || !method.hindsight) image.noise.forget();
        if (method.hindsight) image.trail = full ? { from: image.state, steps: [] } : continued(image, step, kind);
        const { values } = image.looked;
        image.seen = { lastStep: values, lastFull: full || !image.seen ? values : image.seen.lastFull };
      }
      yield {
        ...own,
        durationMs: own.durationMs + walked.durationMs,
        flops: own.flops + walked.flops,
        latents: concat(part.images.map(({ state }) => state.latent)),
      };
      after.push(part);
    }
    return after;
  }

  #judge(image: ImageRun, step: number, outcome: Omit<Outcome, "seen">): string | undefined {
    const { judge } = this.#run.method.policy;
    if (!judge) return undefined;
    const verdict = judge(image.memory, this.#at(step, image.due), { ...outcome, seen: image.looked.changes });
    image.memory = verdict.memory;
    return verdict.redo;
  }

  /**
   * Hindsight: walks the forecast steps before a full one again, now that there is a known value on either side. What
   * the network said of the full step counts as what it said of x0, for where the image is now.
   */
  async #walkAgain(cohort: Cohort, step: number, outputOf: Map<ImageRun, Float32Array>): Promise<Cost> {
    const { sampler } = this.#run;
    const { steps } = (cohort.images[0] as ImageRun).trail;
    if (steps.length === 0) return NOTHING;
    const x0s = cohort.images.map((image) =>
      sampler.denoised(step, image.state.latent, outputOf.get(image) as Float32Array),
    );
    for (const image of cohort.images) image.state = image.trail.from;
    const costs = { durationMs: 0, flops: 0 };
    for (const { step: cheap, kind } of steps) {
      const { outputs, durationMs, flops } = await this.#runner.run(this.#cutOf(kind), cohort, cheap);
      cohort.images.forEach((image, i) => {
        this.#advance(image, outputs[i] as Float32Array, cheap);
      });
      costs.durationMs += durationMs;
      costs.flops += flops;
    }
    cohort.images.forEach((image, i) => {
      outputOf.set(image, sampler.modelOutput(step, image.state.latent, x0s[i] as Float32Array));
    });
    return costs;
  }

  /** Moves an image's sampler. */
  #advance(image: ImageRun, output: Float32Array, step: number): void {
    const { sampler } = this.#run;
    const noise = sampler.draws?.(step) ? image.noise.at(step) : undefined;
    const state = sampler.step(step, image.state, output, noise);
    image.state = image.keep ? { ...state, latent: image.keep(step, state.latent) } : state;
    if (!allFinite(image.state.latent)) throw notFinite("latents are", image.index, step);
  }

  #cutOf(kind: string): Cut | typeof X0 {
    const cut = this.#run.method.cuts[kind];
    if (!cut) throw new Error(`the policy decided for "${kind}", which the method does not have`);
    return cut;
  }

  #at(step: number, due: boolean) {
    return { step, numSteps: this.#run.sampler.timesteps.length, due };
  }
}

const NOTHING: Cost = { durationMs: 0, flops: 0 };

/** The forecast steps behind an image, this one included. */
function continued({ trail }: ImageRun, step: number, kind: string): ImageRun["trail"] {
  return { from: trail.from, steps: [...trail.steps, { step, kind }] };
}

const notFinite = (what: string, image: number, step: number): FemoError =>
  new FemoError(
    "E_RUNTIME",
    `${what} not finite at step ${step} of image ${image}: expected numbers, found NaN or infinity. The weights may be ` +
      "damaged, or the guidance scale or the latents given too large.",
  );
