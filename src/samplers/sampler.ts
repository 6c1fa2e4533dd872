import { FemoError } from "../errors.js";
import type { Leap } from "./levels.js";

/** Where a run stands before a step: all that the steps behind it leave to those ahead. A latent alone begins a run. */
export interface SamplerState {
  /** x at `timesteps[i]`, any layout, latent scale. */
  readonly latent: Float32Array;
  /**
   * What the sampler made of the model's outputs at earlier steps of the run, x₀ or what else its formula is in, newest
   * first; as many as it uses.
   */
  readonly history?: readonly Float32Array[];
  /** The latent to which the next step goes back, of a sampler whose second step repeats the first. */
  readonly start?: Float32Array;
}

/**
 * A sampler with everything but the latent decided beforehand; it holds no state of a run, and no random numbers: a
 * stochastic one is given those of a step.
 */
export interface Sampler {
  readonly name: string;

  /** How the timesteps were chosen, for reports. */
  readonly spacing: string;

  /**
   * Fed to the model, noisiest first, one for each call of it: from 0 to T − 1 of a diffusion, whole numbers but with Euler's
   * method, from 1 to above 0 of a flow.
   */
  readonly timesteps: readonly number[];

  /** Of each step. A sampler may land beside the list on which it goes on: then one's `to` is not the next one's `from`. */
  readonly leaps: readonly Leap[];

  /** Scale of the initial noise: the first latent is this times a standard normal sample. */
  readonly initNoiseSigma: number;

  /** What in these settings is known to cost quality, a sentence each; for reports. */
  readonly notes: readonly string[];

  /** By what the latent is multiplied before it enters the model at step i. */
  inputScale(i: number): number;

  /** Where step i lies on the axis along which features are extrapolated. Counts down as in DiT; only differences matter. */
  position(i: number): number;

  /** Whether step i takes a standard normal sample; left out by samplers of which none does. */
  draws?(i: number): boolean;

  /**
   * State before step i + 1 from state and model output at step i. Pure: any step can be walked again from its state.
   *
   * @param i index into `timesteps`
   * @param state what step i − 1 returned, or a latent alone to begin here; not changed
   * @param modelOutput what the model predicts for the latent, same length and layout, guidance applied; not changed
   * @param noise a standard normal sample as long as the latent, of a step that draws; not changed. Over a run they come
   *   from the generator of the first latent, in the order of the steps
   * @returns new arrays; for the last i, the finished latent
   * @throws FemoError E_OPTION if i is out of range, the lengths differ, or noise that the step draws is missing
   */
  step(i: number, state: SamplerState, modelOutput: Float32Array, noise?: Float32Array): SamplerState;

  /**
   * x₀ as step i sees it before any clipping, of a latent and the model output there; same length and layout.
   * @throws FemoError E_OPTION if i is out of range or the lengths differ
   */
  denoised(i: number, latent: Float32Array, modelOutput: Float32Array): Float32Array;

  /**
   * The model output of which `denoised` makes that x₀ at that latent: its inverse.
   * @throws FemoError E_OPTION if i is out of range, if the lengths differ, or if the latent has no noise and x₀
   *   does not depend on the output
   */
  modelOutput(i: number, latent: Float32Array, denoised: Float32Array): Float32Array;
}

/**
 * The entry of `steps` for step i, once the arguments of {@link Sampler.step} are found to fit.
 * @param what `modelOutput` is, in words
 */
export function checkedStep<Step>(
  steps: readonly Step[],
  i: number,
  { latent, history = [] }: SamplerState,
  modelOutput: Float32Array,
  what = "a model output",
): Step {
  const step = steps[i];
  if (step === undefined) {
    throw new FemoError("E_OPTION", `step: expected an index from 0 to ${steps.length - 1}, found ${i}.`);
  }
  if (latent.length !== modelOutput.length) {
    throw new FemoError(
      "E_OPTION",
      `step ${i}: expected ${what} as long as the latent, ${latent.length}, found ${modelOutput.length}. ` +
        "A model that also predicts its variance has twice the channels: pass the first half.",
    );
  }
  if (history.length > i || history.some(({ length }) => length !== latent.length)) {
    throw new FemoError(
      "E_OPTION",
      `step ${i}: expected a history of at most ${i}, each as long as the latent, ${latent.length}, found ` +
        `${history.length}, of the lengths ${history.map(({ length }) => length).join(", ")}.`,
    );
  }
  return step;
}

/** @throws FemoError E_OPTION if a step that draws has no noise, or of another length than the latent */
export function checkedNoise(i: number, { latent }: SamplerState, noise: Float32Array | undefined): Float32Array {
  if (noise?.length === latent.length) return noise;
  throw new FemoError(
    "E_OPTION",
    `step ${i}: expected noise as long as the latent, ${latent.length}, as the step draws, found ${noise?.length ?? "none"}.`,
  );
}

/** Whether any step takes noise. */
export const isStochastic = ({ timesteps, draws }: Sampler): boolean => timesteps.some((_, i) => draws?.(i) ?? false);

/**
 * A clean latent noised to where step i begins, as diffusers' `add_noise` does: the latent from which a run may begin there.
 *
 * @param i from 0 to n; n is behind the last step, where no or hardly any noise is left
 * @param clean x₀, latent scale; not changed
 * @param noise a standard normal sample; not changed
 * @throws FemoError E_OPTION if i is out of range or the lengths differ
 */
export function noised({ leaps }: Sampler, i: number, clean: Float32Array, noise: Float32Array): Float32Array {
  const level = leaps[i]?.from ?? (i === leaps.length ? leaps[i - 1]?.to : undefined);
  if (!level) throw new FemoError("E_OPTION", `noised: expected an index from 0 to ${leaps.length}, found ${i}.`);
  if (noise.length !== clean.length) {
    throw new FemoError(
      "E_OPTION",
      `noised: expected noise as long as the latent, ${clean.length}, found ${noise.length}.`,
    );
  }
  return clean.map((x, k) => level.signal * x + level.noise * (noise[k] as number));
}

/**
 * Some of a sampler's steps as a sampler: what draws from an image begins late, what hands on to another model ends early. Its
 * step 0 begins a run at the sampler's step `begin`.
 *
 * @param end behind the last step; default: all that are left
 * @throws FemoError E_OPTION if no step is left
 */
export function sampleRange(sampler: Sampler, begin: number, end: number = sampler.timesteps.length): Sampler {
  const n = sampler.timesteps.length;
  const isIndex = (i: number) => Number.isInteger(i) && i >= 0 && i <= n;
  if (!isIndex(begin) || !isIndex(end) || begin >= end) {
    throw new FemoError("E_OPTION", `sampleRange: expected 0 ≤ begin < end ≤ ${n}, found ${begin} and ${end}.`);
  }
  const at = (i: number): number => (i >= 0 && i < end - begin ? begin + i : -1); // beyond it there is no step
  return {
    ...sampler,
    timesteps: sampler.timesteps.slice(begin, end),
    leaps: sampler.leaps.slice(begin, end),
    inputScale: (i) => sampler.inputScale(at(i)),
    position: (i) => sampler.position(begin + i),
    ...(sampler.draws && { draws: (i: number) => sampler.draws?.(at(i)) ?? false }),
    step: (i, ...rest) => sampler.step(at(i), ...rest),
    denoised: (i, ...rest) => sampler.denoised(at(i), ...rest),
    modelOutput: (i, ...rest) => sampler.modelOutput(at(i), ...rest),
  };
}
