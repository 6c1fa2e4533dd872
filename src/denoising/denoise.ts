import type { Forecaster } from "../methods/forecasts/index.js";
import { X0 } from "../methods/index.js";
import { canonical } from "../tracing/index.js";
import { Cohort, type ImageRun } from "./cohort.js";
import { DenoisedState } from "./denoised-state.js";
import { checkCuts } from "./feature-state.js";
import { Loop } from "./loop.js";
import type { Denoised, Denoising, DenoisingStep } from "./records.js";
import { StepNoise } from "./step-noise.js";

/**
 * The loop, for one batch of images: before each step what the policy looks at is run, then every image's kind of step
 * is decided, and images that decided alike run together; the result is guided, judged, and moves the sampler. A step
 * that is judged bad runs once more. Whoever iterates owns progress and may stop at any step.
 * @throws FemoError E_RUNTIME at the first value that is not finite, E_GRAPH if the method does not fit together or the
 *   model; the signal's reason if it was aborted
 */
export async function* denoise(run: Denoising): AsyncGenerator<DenoisingStep, Denoised> {
  const { method, sampler, backbone } = run;
  checkCuts(backbone, method);
  const keepsX0 = Object.values(method.cuts).includes(X0);
  const images: ImageRun[] = run.images.map(({ index, rows, sizes, latent, draw, keep, given = {} }) => ({
    index,
    rows,
    sizes,
    state: { latent },
    ...{ keep, given },
    noise: new StepNoise(draw),
    memory: method.policy.start(index),
    memoryBefore: undefined,
    due: false,
    looked: { values: [], changes: [] },
    seen: undefined,
    x0: keepsX0 ? new DenoisedState(method.forecaster as Forecaster, index, latent.length, method.measure) : undefined,
    trail: { from: { latent }, steps: [] },
  }));
  const loop = new Loop(run);
  const alive = new Set<Cohort>();
  let cohorts: Cohort[] = [];
  try {
    for (const [i, group] of bySize(images).entries()) {
      cohorts.push(await Cohort.start(backbone, method, `${run.prefix}:${i}`, group, alive));
    }
    let stateBytes = 0;
    for (let step = 0; step < sampler.timesteps.length; step++) {
      stateBytes = Math.max(
        stateBytes,
        cohorts.reduce((sum, { bytes }) => sum + bytes, 0),
      );
      const after: Cohort[] = [];
      for (const cohort of cohorts) {
        run.signal?.throwIfAborted();
        const decided = await loop.decide(cohort, step);
        for (const { cohort: part, value: kind } of decided.parts) {
          const share = part.images.length / cohort.images.length;
          const looked = { durationMs: share * decided.durationMs, flops: share * decided.flops };
          after.push(...(yield* loop.step(part, kind, step, looked)));
        }
      }
      cohorts = after;
    }
    run.signal?.throwIfAborted();
    return { latents: images.map(({ state }) => state.latent), stateBytes };
  } finally {
    // An engine that is closed holds nothing.
    await Promise.all([...alive].map((cohort) => cohort.free())).catch(() => {});
  }
}

/** Images whose runs have the same shapes. */
function bySize(images: readonly ImageRun[]): ImageRun[][] {
  const groups = new Map<string, ImageRun[]>();
  for (const image of images) {
    const key = canonical([image.sizes, image.rows.length]);
    groups.set(key, [...(groups.get(key) ?? []), image]);
  }
  return [...groups.values()];
}
