import { FemoError } from "../errors.js";
import type { Leap } from "./levels.js";

/** Where a run stands before a step: all that the steps behind it leave to those ahead. */
export interface SamplerState {
  /** x at `timesteps[i]`, any layout, latent scale. */
  readonly latent: Float32Array;
  /** x₀ as predicted one step earlier, which samplers of second order need. A state without it begins a run. */
  readonly previous?: Float32Array;
  /** x₀ as predicted at all steps of the run so far, newest first, for a sampler that goes by them all. */
  readonly history?: readonly Float32Array[];
}

/** A deterministic sampler with everything but the latent decided beforehand; it holds no state of a run. */
export interface Sampler {
  readonly name: string;

  /** How the timesteps were chosen, for reports. */
  readonly spacing: string;

  /** Fed to the model, noisiest first: whole numbers from 0 to T − 1 of a diffusion, from 1 to above 0 of a flow. */
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

  /**
   * State before step i + 1 from state and model output at step i. Pure: any step can be walked again from its state.
   *
   * @param i index into `timesteps`
   * @param state what step i − 1 returned, or a latent alone to begin here; not changed
   * @param modelOutput what the model predicts for the latent, same length and layout, guidance applied; not changed
   * @returns new arrays; for the last i, the finished latent
   * @throws FemoError E_OPTION if i is out of range or the lengths differ
   */
  step(i: number, state: SamplerState, modelOutput: Float32Array): SamplerState;

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
  { latent, previous, history = [] }: SamplerState,
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
  if (previous && previous.length !== latent.length) {
    throw new FemoError(
      "E_OPTION",
      `step ${i}: expected previous to be as long as the latent, ${latent.length}, found ${previous.length}.`,
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
