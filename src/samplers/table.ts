import { ddimSampler } from "./ddim.js";
import type { SamplerDefinition } from "./definition.js";
import { dpmSolverSampler } from "./dpm-solver.js";

/** The samplers there are, a line each. */
export const samplerTable = [ddimSampler, dpmSolverSampler] as const;

type Definition = (typeof samplerTable)[number];

/** A sampler's name, as requests and reports use it. */
export type SamplerName = Definition["name"];
export const samplerNames: readonly SamplerName[] = samplerTable.map(({ name }) => name);

/**
 * What is known of a model's sampling: its own sampler, and that sampler's settings as far as they are given. What is not
 * given the sampler fills in for itself.
 */
export type SchedulerConfig = {
  [D in Definition as D["name"]]: D extends SamplerDefinition<infer Name, infer Settings>
    ? { readonly sampler: Name } & Settings
    : never;
}[SamplerName];

/** A sampler as its authors write it. */
export const samplerTitle = (name: SamplerName): string =>
  (samplerTable.find((sampler) => sampler.name === name) as Definition).title;
