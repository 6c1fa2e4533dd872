import { ddimSampler } from "./ddim.js";
import { ddpmSampler } from "./ddpm.js";
import type { Process, SamplerDefinition } from "./definition.js";
import { deisSampler } from "./deis.js";
import { dpmSolverSampler } from "./dpm-solver.js";
import { dpmSolverSdeSampler } from "./dpm-solver-sde.js";
import { eulerSampler } from "./euler.js";
import { eulerAncestralSampler } from "./euler-ancestral.js";
import { flowDeisSampler } from "./flow-deis.js";
import { flowDpmSolverSampler } from "./flow-dpm-solver.js";
import { flowEulerSampler } from "./flow-euler.js";
import { flowMultistepSampler } from "./flow-multistep.js";
import type { ModelSetting } from "./given-settings.js";
import { lcmSampler } from "./lcm.js";
import { type MultistepSolver, multistepSampler } from "./multistep.js";
import { pndmSampler } from "./pndm.js";
import { uniPcSampler } from "./unipc.js";

/** The samplers there are, a line each. */
export const samplerTable = [
  ddimSampler,
  dpmSolverSampler,
  dpmSolverSdeSampler,
  uniPcSampler,
  deisSampler,
  pndmSampler,
  eulerSampler,
  eulerAncestralSampler,
  ddpmSampler,
  lcmSampler,
  multistepSampler,
  flowEulerSampler,
  flowDpmSolverSampler,
  flowDeisSampler,
  flowMultistepSampler,
] as const;

type Definition = (typeof samplerTable)[number];

/** A sampler's name, as reports use it. */
export type SamplerName = Definition["name"];

/** What a request's sampler may be: the name of one, name and settings, or a solver as data. */
export type SamplerOption = NamedSampler | SamplerWithSettings | MultistepSolver;
/** A sampler that a request says by its name. */
export type NamedSampler = Exclude<SamplerName, MultistepSolver["sampler"]>;
const isNamed = (name: SamplerName): name is NamedSampler => name !== "multistep";
/** A name and settings of that sampler, which go over the model's own and those that carry over from it. */
export type SamplerWithSettings = GivenOf<Definition>;
type GivenOf<D> =
  D extends SamplerDefinition<infer Name, infer Settings>
    ? Name extends NamedSampler
      ? { readonly sampler: Name } & Omit<Settings, ModelSetting>
      : never
    : never;
/** The samplers that a request chooses by name; `multistep` it gives as data. */
export const namedSamplers: readonly NamedSampler[] = [
  ...new Set(samplerTable.map(({ name }) => name).filter(isNamed)),
];

/** Of them those for such models. */
export const samplersOf = (process: Process): readonly NamedSampler[] =>
  samplerTable.flatMap(({ name, process: own }) => (own === process && isNamed(name) ? [name] : []));

/** How many steps a sampler says by itself; undefined if that is left to the request. */
export const ownSteps = (sampler: SamplerOption | undefined): number | undefined =>
  isSolver(sampler) && Array.isArray(sampler.timesteps) ? sampler.timesteps.length : undefined;

/** Whether it is a solver as data. */
export const isSolver = (sampler: SamplerOption | undefined): sampler is MultistepSolver =>
  typeof sampler === "object" && sampler?.sampler === "multistep";

/** A copy of the settings that a request gives with a sampler's name; undefined if it gives none, or a solver. */
export function settingsOf(sampler: SamplerOption | undefined): SamplerSettings | undefined {
  if (typeof sampler !== "object" || isSolver(sampler)) return undefined;
  const { sampler: _, ...settings } = sampler;
  const given = Object.entries(settings).filter(([, value]) => value !== undefined);
  return given.length > 0 ? structuredClone(Object.fromEntries(given)) : undefined;
}

/** Settings by their names, as reports say them. */
export type SamplerSettings = Readonly<Record<string, unknown>>;

/**
 * What is known of a model's sampling: its own sampler, and that sampler's settings as far as they are given. What is not
 * given the sampler fills in for itself.
 */
export type SchedulerConfig = ConfigOf<Definition>;
type ConfigOf<D> =
  D extends SamplerDefinition<infer Name, infer Settings> ? { readonly sampler: Name } & Settings : never;

/** A sampler as its authors write it. */
export const samplerTitle = (name: SamplerName): string =>
  (samplerTable.find((sampler) => sampler.name === name) as Definition).title;
