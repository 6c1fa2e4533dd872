import { readFileSync } from "node:fs";
import { type Sampler, type SchedulerConfig, schedulerFromConfig } from "../../src/samplers/index.js";

/** Noise levels and timesteps, as diffusers has them. */
export interface Levels {
  readonly timesteps: readonly number[];
  /** With that where the last step lands. */
  readonly sigmas: readonly number[];
}

/** Steps from `first` by given model outputs. */
export interface Walk {
  readonly first: readonly number[];
  readonly velocities: readonly (readonly number[])[];
  readonly latents: readonly (readonly number[])[];
}

/** How a golden was made. */
export interface Made {
  readonly config: Record<string, unknown>;
  readonly tokens: number | null;
  readonly steps: number;
}

interface Golden {
  readonly schedules: readonly (Made & Levels & { readonly list: "trailing" | readonly number[] | null })[];
  readonly steps: readonly (Made & Walk & { readonly list: "trailing" | null })[];
  readonly solver: readonly (Made & Levels & Walk)[];
  readonly solverOnEuler: readonly (Made & Walk)[];
  readonly quantiles: readonly { readonly a: number; readonly p: number; readonly x: number }[];
}

export const flowGolden: Golden = JSON.parse(
  readFileSync(new URL("../goldens/flow-match-euler.json", import.meta.url), "utf8"),
);

/** FLUX.1-dev's. */
export const fluxScheduler: SchedulerConfig = {
  ...schedulerFromConfig({ _class_name: "FlowMatchEulerDiscreteScheduler", use_dynamic_shifting: true, shift: 3 }),
  timestepSpacing: "trailing",
} as SchedulerConfig;

/** σ of each step and where the last one lands. */
export const sigmasOf = ({ leaps }: Sampler): number[] => [
  ...leaps.map(({ from }) => from.noise),
  leaps.at(-1)?.to.noise as number,
];

/** What FLUX's pipeline makes of timesteps, in float32. */
export const modelTimes = (timesteps: readonly number[]): number[] =>
  timesteps.map((t) => Math.fround(Math.fround(t) / 1000));
