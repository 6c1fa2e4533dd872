import type { DenoisingStep } from "../../../src/denoising/records.js";
import {
  type CacheOptions,
  cacheLevels,
  cacheSettings,
  defaultPresets,
  type Method,
  type ModelFacts,
  methodOf,
} from "../../../src/methods/index.js";
import type { TinyRuns } from "../../denoising/tiny-runs.js";
import { random } from "../forecasts/replay.js";

export const facts: ModelFacts = {
  levels: ["module", "block", "stack", "output"],
  chains: { transformer_blocks: 8 },
  marks: ["modulated"],
};

/** A method as a request would run it. */
export function methodFor(cache: CacheOptions, model: ModelFacts = facts): Method {
  return methodOf(cacheSettings(cache, defaultPresets, cacheLevels(model)), model);
}

/** The kinds that a policy decides for, of one image whose looks see these changes; "F" is a full step, "c" another. */
export function decided(cache: CacheOptions, changes: readonly number[], due: readonly number[] = []): string {
  const { policy } = methodFor(cache);
  let memory = policy.start(0);
  return changes
    .map((change, step) => {
      const at = { step, numSteps: changes.length, due: due.includes(step) };
      const decision = policy.decide(memory, at, [step === 0 ? undefined : change]);
      memory = decision.memory;
      return decision.kind === "full" ? "F" : "c";
    })
    .join("");
}

/** As many changes, from 0 to twice `mean`. */
export function someChanges(count: number, seed: number, mean: number): number[] {
  const next = random(seed);
  return Array.from({ length: count }, () => mean * (1 + next()));
}

/** What the policy saw at a step of an image, and what it decided. */
export interface Decision {
  readonly step: number;
  readonly seen: number | undefined;
  readonly kind: string;
}

/** Draws images on the tiny model; `decisions` are those of each image, step by step. */
export async function draw(run: TinyRuns["run"], method: Method, images: readonly number[], numInferenceSteps: number) {
  const decisions: Decision[][] = images.map(() => []);
  const { policy } = method;
  const watched: Method = {
    ...method,
    policy: {
      ...policy,
      start: (image) => ({ image, inner: policy.start(image) }),
      decide(memory, at, seen) {
        const { image, inner } = memory as { image: number; inner: unknown };
        const decision = policy.decide(inner, at, seen);
        decisions[images.indexOf(image)]?.push({ step: at.step, seen: seen[0], kind: decision.kind });
        return { ...decision, memory: { image, inner: decision.memory } };
      },
    },
  };
  return { ...(await run(watched, images, numInferenceSteps)), decisions };
}

/** The kinds that images really got, step by step. */
export const kindsOf = (steps: readonly DenoisingStep[], image: number): string[] =>
  steps.filter(({ images }) => images.includes(image)).map(({ kind }) => kind);
