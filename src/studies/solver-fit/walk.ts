import { concat } from "../../denoising/index.js";
import { uncachedMethod } from "../../methods/index.js";
import type { DiffusionPipeline, GenerateOptions } from "../../pipelines/index.js";
import { createSampler, type MultistepSolver, type SamplerState } from "../../samplers/index.js";

/** Images on their way by a solver of n runs, as one long latent. */
export interface Walk {
  readonly solver: MultistepSolver;
  /** Before each run, and behind the last.  [n + 1] */
  readonly states: readonly SamplerState[];
  /** What the network says at each run, guided.  [n][images × size] */
  readonly outputs: readonly Float32Array[];
}

/** Walks the images of a request from their noise. */
export class Walker {
  readonly #pipeline: DiffusionPipeline;
  readonly #request: GenerateOptions;
  readonly #noise: Float32Array;

  private constructor(pipeline: DiffusionPipeline, request: GenerateOptions, noise: Float32Array) {
    this.#pipeline = pipeline;
    this.#request = request;
    this.#noise = noise;
  }

  /** @param request which has no sampler */
  static async of(pipeline: DiffusionPipeline, request: GenerateOptions): Promise<Walker> {
    // Any timestep shows what a run begins with.
    const { latents } = await observed(pipeline, request, 1);
    return new Walker(pipeline, request, latents);
  }

  /**
   * Goes as a request with this solver does. Runs of the network that another walk has done already, as nothing before them
   * differs, are taken from it.
   * @param onRun told how many runs of the network are done, and of how many
   */
  async walk(solver: MultistepSolver, onRun?: (done: number, of: number) => void, known?: Walk): Promise<Walk> {
    const n = solver.timesteps.length;
    const sampler = createSampler(this.#pipeline.scheduler, { sampler: solver, numInferenceSteps: n });
    const shared = known === undefined ? 0 : sharedRuns(solver, known.solver);
    const states: SamplerState[] = [{ latent: this.#noise }];
    const outputs: Float32Array[] = [];
    for (const [i, timestep] of solver.timesteps.entries()) {
      const state = states[i] as SamplerState;
      const output = i < shared ? (known?.outputs[i] as Float32Array) : await this.#run(timestep, state.latent);
      if (i >= shared) onRun?.(i + 1 - shared, n - shared);
      outputs.push(output);
      states.push(sampler.step(i, state, output));
    }
    return { solver, states, outputs };
  }

  async #run(timestep: number, latents: Float32Array): Promise<Float32Array> {
    return (await observed(this.#pipeline, { ...this.#request, latents }, timestep)).outputs;
  }
}

/** One run of the network: what it is given, and what it says, guided. */
async function observed(pipeline: DiffusionPipeline, request: GenerateOptions, timestep: number) {
  const once = { sampler: "multistep", timesteps: [timestep], table: [[1]] } as const;
  const latents: Float32Array[] = [];
  const outputs: Float32Array[] = [];
  await pipeline.observe({ ...request, sampler: once }, uncachedMethod, (image, _step, _shown, sampled) => {
    latents[image] = sampled.latent;
    outputs[image] = sampled.output;
  });
  return { latents: concat(latents), outputs: concat(outputs) };
}

/** Where a walk ended. */
export const endOf = ({ states }: Walk): Float32Array => (states.at(-1) as SamplerState).latent;

/** How many runs of two solvers are the same: those that are told the same, behind equal steps. */
export function sharedRuns(a: MultistepSolver, b: MultistepSolver): number {
  const levels = ({ timesteps, levelTimesteps = timesteps }: MultistepSolver) => levelTimesteps;
  const isSameStep = (i: number): boolean => {
    const [row, other] = [a.table[i] as readonly number[], b.table[i]];
    const isFrom = (at: number) => levels(a)[at] === levels(b)[at];
    return isFrom(i) && isFrom(i + 1) && row.every((weight, j) => weight === other?.[j]);
  };
  const differs = a.timesteps.findIndex((t, i) => t !== b.timesteps[i] || (i > 0 && !isSameStep(i - 1)));
  return differs === -1 ? a.timesteps.length : differs;
}
