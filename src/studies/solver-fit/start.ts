import { FemoError } from "../../errors.js";
import { toMultistep } from "../../methods/index.js";
import type { DiffusionPipeline } from "../../pipelines/index.js";
import {
  createSampler,
  levelTimesteps,
  type MultistepSolver,
  processOf,
  type Sampler,
  type SchedulerConfig,
  straightWeights,
} from "../../samplers/index.js";
import { rivalsOf, rivalWords } from "../rivals.js";

/** A solver to begin with. */
export interface StartingSolver {
  readonly name: string;
  /** The sampler or method, whatever its settings. */
  readonly kind: string;
  readonly solver: MultistepSolver;
}

/**
 * Solvers of n runs from which a fit may begin: hindsight at the steps that were placed on the model, if some were, and at even
 * ones; and the published samplers whose steps are linear, in every spacing.
 * @param numInferenceSteps of the reference, among which full steps of hindsight lie
 */
export function startingSolvers(
  { scheduler, presets, schedules }: Pick<DiffusionPipeline, "scheduler" | "presets" | "schedules">,
  n: number,
  numInferenceSteps: number,
): StartingSolver[] {
  const even = Array.from({ length: n }, (_, i) => Math.floor((i * numInferenceSteps) / n));
  const hindsight = (fullSteps: number | readonly number[]) => () =>
    toMultistep(
      { method: "hindsight", fullSteps: typeof fullSteps === "number" ? fullSteps : [...fullSteps] },
      { scheduler, presets, schedules, numInferenceSteps },
    );
  const process = processOf(scheduler);
  const published = rivalsOf(process, false).flatMap((rival) =>
    attempted(rivalWords(rival), () =>
      asMultistep(createSampler(scheduler, { ...rival, numInferenceSteps: n }), scheduler),
    ),
  );
  return [
    ...attempted(["hindsight", "placed"], hindsight(n)),
    ...attempted(["hindsight"], hindsight(even)),
    // Those that are called once more than they have steps are of other runs.
    ...published.filter(({ solver }) => solver.timesteps.length === n),
  ];
}

/** Nothing where the model has no such solver. */
function attempted(
  words: readonly [kind: string, ...settings: string[]],
  make: () => MultistepSolver,
): StartingSolver[] {
  try {
    return [{ name: words.join(", "), kind: words[0], solver: make() }];
  } catch (error) {
    if (error instanceof FemoError && error.code === "E_OPTION") return [];
    throw error;
  }
}

/**
 * A sampler whose steps are linear in the latent and in the x₀ of its steps so far, as its table: it is walked once with a
 * unit vector in place of each of them.
 * @throws FemoError E_OPTION if a step has another form: fresh noise, clipping, or a latent of another scale
 */
function asMultistep(sampler: Sampler, scheduler: SchedulerConfig): MultistepSolver {
  const { timesteps, leaps } = sampler;
  const n = timesteps.length;
  const unit = (place: number): Float32Array => new Float32Array(n + 1).fill(1, place, place + 1);
  let state: Parameters<Sampler["step"]>[1] = { latent: unit(0) };
  const table = leaps.map((leap, i) => {
    if (sampler.draws?.(i) || sampler.inputScale(i) !== 1) throw notLinear(sampler);
    const output = sampler.modelOutput(i, state.latent, unit(i + 1));
    const next = sampler.step(i, state, output);
    const straight = straightWeights(leap);
    const row = Array.from(next.latent, (x, k) => (x - straight.x * (state.latent[k] as number)) / straight.x0);
    const [ofLatent, ...ofDenoised] = row as [number, ...number[]];
    state = next;
    if (!(Math.abs(ofLatent) < ROUNDING)) throw notLinear(sampler);
    return normalised(ofDenoised.slice(0, i + 1));
  });
  const levels = levelTimesteps(
    scheduler,
    leaps.map(({ from }) => from),
  );
  const isTold = levels.every((level, i) => Math.abs(level - (timesteps[i] as number)) < SAME_TIME);
  return {
    sampler: "multistep",
    timesteps,
    ...(!isTold && { levelTimesteps: levels }),
    table,
    ...(processOf(scheduler) === "diffusion" && { finalAlphaBar: leaps.at(-1)?.to.signalVariance ?? 1 }),
  };
}

const ROUNDING = 1e-3; // of float32, over a short leap
const SAME_TIME = 1e-6; // of float32 too

/** The newest takes what rounding left of a sum of 1. */
function normalised(row: readonly number[]): number[] {
  const earlier = row.slice(0, -1);
  return [...earlier, 1 - earlier.reduce((a, b) => a + b, 0)];
}

const notLinear = ({ name }: Sampler): FemoError =>
  new FemoError("E_OPTION", `sampler: expected one whose steps are linear and draw no noise, found ${name}`);
